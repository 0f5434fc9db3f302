"""A transcript as the text that a server of plain completions is sent. Pure.

Both sides of every comparison read the same transcript: roles go through the model's own chat
template, and text stands as it is, behind a user's message as the start of the answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from pie_trio.services.chat_template import ChatTemplate

Part = tuple[str, str]  # a role (system, user, or text as it stands) and what it says


def prompt_of(parts: Sequence[Part], template: ChatTemplate) -> str:
    """What a context holds that was filled with these parts."""
    messages: list[dict[str, str]] = []
    written = ""
    for role, content in parts:
        if role == "text":
            written += content
            continue
        if written:
            messages.append({"role": "assistant", "content": written})
            written = ""
        messages.append({"role": role, "content": content})
    if not messages:
        return written
    is_open = messages[-1]["role"] == "user"
    return template.render(messages, add_generation_prompt=is_open) + written
