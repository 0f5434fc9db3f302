"""All the concurrency that is added to Trio: a one-shot answer slot.

A `Reply` belongs to its asker; filling it never blocks, even if nobody waits any more. What dies
with an asker is only its interest: the slot is filled all the same and forgotten. Mailboxes are
Trio's own memory channels, always bounded, each with a bound that `config.Limits` names.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import trio

from pie_trio.errors import PieError, retold

T = TypeVar("T")


class Reply(Generic[T]):
    """A one-shot answer slot: filled or refused exactly once, readable any number of times."""

    __slots__ = ("_error", "_event", "_value", "is_filled")

    def __init__(self) -> None:
        self.is_filled = False
        self._event: trio.Event | None = None  # made by the first who waits
        self._value: list[T] = []
        self._error: PieError | None = None

    def fill(self, value: T) -> None:
        assert not self.is_filled, "a reply is filled only once"
        self._value.append(value)
        self._tell()

    def refuse(self, error: PieError) -> None:
        assert not self.is_filled, "a reply is filled only once"
        self._error = error
        self._tell()

    def _tell(self) -> None:
        self.is_filled = True
        if self._event is not None:
            self._event.set()

    def take(self) -> T:
        """The answer, or its refusal raised; only after it was filled."""
        assert self.is_filled, "an answer is read only after it came"
        if self._error is not None:
            raise retold(self._error)
        return self._value[0]

    async def wait(self) -> None:
        if self._event is None:
            self._event = trio.Event()
            if self.is_filled:
                self._event.set()
        await self._event.wait()

    async def answer(self) -> T:
        """Cancelled: the answer falls into an empty slot."""
        await self.wait()
        return self.take()
