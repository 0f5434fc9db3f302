"""Chat: the messages of a conversation and how much of their rendering is in the context. Pure.

A template renders whole conversations, not single messages, so each time the conversation is
rendered again and only what is new is added. A template that rewrites the past is an error here.
The user's message gives the model the turn; what is written until somebody else speaks is the
model's message, which has no end yet.
"""

from __future__ import annotations

import json
from collections.abc import Sequence


class Chat:
    """The messages so far, and the text that the context already holds of them."""

    def __init__(
        self, messages: Sequence[dict[str, str]] = (), held: str = "", written: str | None = None
    ) -> None:
        self.messages = list(messages)
        self.held = held
        self.written = written  # of the model's turn so far; None when it has not got the turn
        self.is_complete = True  # everything said and written is in the context

    def copy(self) -> Chat:
        twin = Chat(self.messages, self.held, self.written)
        twin.is_complete = self.is_complete
        return twin

    def say(self, role: str, content: str) -> None:
        """Adds a message; it reaches the context with the next pass."""
        if self.written or (self.written is not None and self.is_complete):
            self.messages.append({"role": "assistant", "content": self.written})
        self.messages.append({"role": role, "content": content})
        self.written = "" if role == "user" else None
        self.is_complete = False

    def write(self, content: str) -> None:
        """Adds to the model's message. If all before it is in the context, so is this."""
        if self.written is not None:
            self.written += content
            if self.is_complete:
                self.held += content

    def request(self) -> str:
        """The messages as JSON; the model's turn is opened if it has it."""
        opens_turn = self.written is not None
        return json.dumps({"messages": self.messages, "add_generation_prompt": opens_turn})

    def take_new(self, rendered: str) -> str:
        """What the context lacks of `rendered`; afterwards the context is taken to hold it."""
        whole = rendered + (self.written or "")
        if not whole.startswith(self.held):
            raise ValueError("the chat template changes earlier messages when later ones come")
        new = whole[len(self.held) :]
        self.held = whole
        self.is_complete = True
        return new
