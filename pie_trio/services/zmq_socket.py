"""A ZeroMQ socket on Trio: one task that receives, senders that wait for room.

The descriptor of a ZeroMQ socket is edge-triggered and only ever readable, even for "may send":
readable means "look at EVENTS". Any operation may swallow an edge, so after each one EVENTS is read
again and whoever can go on is told. Only who receives waits on the descriptor. A cancel comes
before an operation or not at all: no message is lost. The socket is closed with its scope and must
never be touched from another thread.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import trio
import zmq

# Plain numbers: every operation on ZeroMQ's own makes an object of its enumeration.
AT_ONCE, MAY_RECEIVE, MAY_SEND = int(zmq.DONTWAIT), int(zmq.POLLIN), int(zmq.POLLOUT)
MESSAGES_AT_ONCE = 16  # then others have their turn, however fast the peer talks


class TrioSocket:
    """One ZeroMQ socket; see `open_socket`."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        self._fd = int(socket.getsockopt(zmq.FD))
        self._senders = trio.lowlevel.ParkingLot()
        self._edge = trio.CancelScope()  # of the receiver's wait for the next edge
        self._is_closed = False

    async def send_multipart(self, frames: Sequence[bytes]) -> None:
        """Raises `zmq.ZMQError` and `trio.ClosedResourceError`. Room is made only while somebody
        receives."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self.send_nowait(frames):
            await self._senders.park()
        await trio.lowlevel.cancel_shielded_checkpoint()

    def send_nowait(self, frames: Sequence[bytes]) -> bool:
        """Whether there was room. Raises `zmq.ZMQError` and `trio.ClosedResourceError`."""
        if self._is_closed:
            raise trio.ClosedResourceError
        try:
            self._socket.send_multipart(frames, AT_ONCE)
        except zmq.Again:
            return False
        finally:
            self._tell(self._events())
        return True

    async def receive(self, take: Callable[[list[bytes]], object]) -> None:
        """Hands over each message as it arrives, until the socket is closed. One task only."""
        while not self._is_closed:
            with trio.CancelScope() as self._edge:
                self._receive_some(take)
                with suppress(trio.ClosedResourceError):
                    await trio.lowlevel.wait_readable(self._fd)

    def _receive_some(self, take: Callable[[list[bytes]], object]) -> None:
        events, taken = self._events(), 0
        while events & MAY_RECEIVE and taken < MESSAGES_AT_ONCE:
            take(self._socket.recv_multipart(AT_ONCE))
            events, taken = self._events(), taken + 1
        self._tell(events)

    def _events(self) -> int:
        return int(self._socket.getsockopt(zmq.EVENTS))

    def _tell(self, events: int) -> None:
        """Lets others go on, if they can."""
        if events & MAY_RECEIVE:
            self._edge.cancel()
        if events & MAY_SEND:
            self._senders.unpark()

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        trio.lowlevel.notify_closing(self._fd)
        self._senders.unpark_all()
        self._socket.close(linger=0)


@asynccontextmanager
async def open_router(
    context: zmq.Context[zmq.Socket[bytes]], endpoint: str, frame_bytes_max: int
) -> AsyncIterator[TrioSocket]:
    """A ROUTER bound to `endpoint`. A peer that is gone raises `zmq.ZMQError` at the sender."""
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.MAXMSGSIZE, frame_bytes_max)
    try:
        socket.bind(endpoint)
    except BaseException:
        socket.close(linger=0)
        raise
    async with open_socket(socket) as wrapped:
        yield wrapped


@asynccontextmanager
async def open_socket(socket: zmq.Socket[bytes]) -> AsyncIterator[TrioSocket]:
    """Owns the socket from now on: it is closed with the block."""
    wrapped = TrioSocket(socket)
    try:
        yield wrapped
    finally:
        wrapped.close()
