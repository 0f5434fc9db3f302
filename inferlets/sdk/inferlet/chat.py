"""Chat: the messages of a conversation and how much of their rendering is in the context. Pure.

A template renders whole conversations, not single messages, so each time the conversation is
rendered again and only what is new is added. A template that rewrites the past is an error here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence


class Chat:
    """The messages so far, and the text that the context already holds of them."""

    def __init__(self) -> None:
        self.messages: list[dict[str, str]] = []
        self.held = ""
        self.is_complete = True  # everything said is in the context

    @classmethod
    def from_messages(cls, messages: Sequence[dict[str, str]], held: str) -> Chat:
        """A conversation that the context holds already."""
        chat = cls()
        chat.messages, chat.held = list(messages), held
        return chat

    def copy(self) -> Chat:
        twin = Chat.from_messages(self.messages, self.held)
        twin.is_complete = self.is_complete
        return twin

    def say(self, role: str, content: str) -> None:
        """Adds a message; it reaches the context with the next pass."""
        self.messages.append({"role": role, "content": content})
        self.is_complete = False

    def hear(self, content: str) -> None:
        """Notes what the model wrote as the assistant's message; the context holds it already."""
        if self.messages and self.messages[-1]["role"] == "user":
            self.messages.append({"role": "assistant", "content": content})
            self.held += content

    def request(self) -> str:
        """The conversation as JSON; the model's turn is opened if the user spoke last."""
        opens_turn = self.messages[-1]["role"] == "user"
        return json.dumps({"messages": self.messages, "add_generation_prompt": opens_turn})

    def take_new(self, rendered: str) -> str:
        """What the context lacks of `rendered`; afterwards the context is taken to hold it."""
        if not rendered.startswith(self.held):
            raise ValueError("the chat template changes earlier messages when later ones come")
        new = rendered[len(self.held) :]
        self.held = rendered
        self.is_complete = True
        return new
