"""Messages: to and from the client that started the program, and between programs by topic.

A subscription delivers every message of its topic, in order; it ends when it is closed or dropped.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from wit_world.imports import message

from inferlet.host import settled, utf8


def send(text: str) -> None:
    """Gives the client a piece of text; waits inside the host while the client is slow."""
    message.send(utf8(text))


async def receive() -> str:
    """The next message from the client."""
    pending = message.receive()
    await settled(pending)
    text = pending.get()
    if text is None:
        raise EOFError("no client will send anything more")
    return text


def broadcast(topic: str, text: str) -> None:
    """Gives every subscriber of `topic` a message."""
    message.broadcast(utf8(topic), utf8(text))


class Subscription:
    """The messages of one topic; iterate it, or await `get`."""

    def __init__(self, topic: str) -> None:
        self._raw = message.subscribe(utf8(topic))

    async def get(self) -> str:
        """The next message of the topic."""
        while (text := self._raw.get()) is None:
            await settled(self._raw)
        return text

    async def __aiter__(self) -> AsyncIterator[str]:
        while True:
            yield await self.get()

    def close(self) -> None:
        """Nothing more is delivered."""
        self._raw.unsubscribe()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def subscribe(topic: str) -> Subscription:
    """Starts to listen to a topic."""
    return Subscription(topic)
