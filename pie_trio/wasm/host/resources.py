"""What a guest holds of `inferlet:core/common`: blobs, models, queues and answers still to come.

Owns nothing but views: the pages and the queue itself live behind the handles. When the guest drops
one of these or dies, its `close` gives back at once what it held here.
It must never wait in `close`, nor fail there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import attrs

from pie_trio.handles import ModelHandle, QueueHandle
from pie_trio.mailbox import Reply
from pie_trio.messages import PassResult
from pie_trio.wasm.host.state import HeldMemory, InstanceHost

T = TypeVar("T")


@attrs.define(eq=False)
class Blob:
    """Bytes that the host holds for the guest and that never change."""

    data: bytes
    _held: HeldMemory
    _is_closed: bool = attrs.field(default=False, init=False)

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._held.refund(len(self.data))


@attrs.define(eq=False)
class Receipt(Generic[T]):
    """A place in the line of an inbox. Dropped unread, its message goes back to the line."""

    ticket: Reply[T]
    _withdraw: Callable[[Reply[T]], None]
    _is_read: bool = attrs.field(default=False, init=False)
    is_closed: bool = attrs.field(default=False, init=False)

    def read(self) -> T | None:
        """The message, each time it is asked for; none until it came."""
        if not self.ticket.is_filled:
            return None
        self._is_read = True
        return self.ticket.take()

    def close(self) -> None:
        if not self._is_read and not self.is_closed:
            self._withdraw(self.ticket)
        self.is_closed = True


@attrs.frozen(eq=False)
class ReceiptPollable:
    """Ready when the message came, or never can because its receipt was dropped."""

    receipt: Receipt[str] | Receipt[bytes]
    from_client: bool = attrs.field(default=True, init=False)

    def ready(self) -> bool:
        return self.receipt.is_closed or self.receipt.ticket.is_filled

    async def wait(self) -> None:
        if not self.ready():
            await self.receipt.ticket.wait()


@attrs.frozen(eq=False)
class Model:
    """The guest's view of a model."""

    handle: ModelHandle


@attrs.define(eq=False)
class Queue:
    """The guest's view of a queue, and the passes of which nobody asked an answer."""

    handle: QueueHandle
    _host: InstanceHost
    unasked: deque[Reply[PassResult]] = attrs.field(factory=deque, init=False)

    def check_unasked(self) -> None:
        """Raises the refusal of a pass without outputs: nobody else would ever read it."""
        while self.unasked and self.unasked[0].is_filled:
            self.unasked.popleft().take()

    def forget_unasked(self) -> None:
        """The guest was told by its barrier that a pass failed; the next one is a new start."""
        while self.unasked and self.unasked[0].is_filled:
            self.unasked.popleft()

    def close(self) -> None:
        self._host.queues_open -= 1


@attrs.frozen(eq=False)
class SynchronizationResult:
    """Whether everything before the barrier has completed."""

    reply: Reply[bool]
    queue: Queue


@attrs.frozen(eq=False)
class DebugQueryResult:
    """The answer to a debug query."""

    reply: Reply[str]
