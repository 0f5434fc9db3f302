"""Children: programs that this one starts, which live inside of it.

A child ends when its block is left, when its handle is dropped and when this program ends; what it
held is back before its outcome can be seen. Messages that nobody has received are kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from componentize_py_types import Err
from wit_world.imports import child, errors

from inferlet.errors import Refused, exception_of, raised
from inferlet.host import in_milliseconds, settled, utf8


class ChildFailed(Refused):
    """The child trapped, or returned an error; nobody else noticed."""


class Child:
    """A program that was started by this one; iterate it to get what it sends.

    async with start_child("text-completion", "--prompt", "Hello") as completion:
        async for piece in completion:
            send(piece)
        text = await completion.outcome()
    """

    def __init__(self, process: child.Process) -> None:
        self._process = process
        self._unread: deque[str] = deque()

    def send(self, text: str) -> None:
        """Gives the child a message, which its `receive` returns."""
        with raised():
            self._process.send(utf8(text))

    async def receive(self) -> str | None:
        """Its next message; None when it has ended and has said nothing more."""
        while not self._unread:
            # Asked first: the child may send its last message and end between two calls.
            has_ended = self._process.outcome() is not None
            text = self._process.receive()
            if text is not None:
                return text
            if has_ended:
                return None
            await settled(self._process)
        return self._unread.popleft()

    async def __aiter__(self) -> AsyncIterator[str]:
        while (text := await self.receive()) is not None:
            yield text

    async def outcome(self) -> str:
        """What it returned. Raises `ChildFailed`, or what else befell it."""
        while (outcome := self._process.outcome()) is None:
            await settled(self._process)
            self._keep_messages()
        if isinstance(outcome, Err):
            if isinstance(outcome.value, errors.Error_Failed):
                raise ChildFailed(outcome.value.value)
            raise exception_of(outcome.value)
        return outcome.value

    def cancel(self, reason: str = "its parent has enough") -> None:
        """Ends it; its outcome follows when its pages are back."""
        self._process.cancel(reason)

    def close(self) -> None:
        """Lets go of it, which ends it."""
        self._process.__exit__(None, None, None)

    def _keep_messages(self) -> None:
        """So that a child whose messages nobody wants comes to its end all the same."""
        while (text := self._process.receive()) is not None:
            self._unread.append(text)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.cancel()
            while self._process.outcome() is None:
                await settled(self._process)
                self._keep_messages()
        finally:
            self.close()


def start_child(program: str = "", *arguments: str, deadline: float | None = None) -> Child:
    """Starts an installed program, or this one again; `deadline` is in seconds from now."""
    texts = [*map(utf8, arguments)]
    with raised():
        return Child(child.start(utf8(program), texts, in_milliseconds(deadline)))
