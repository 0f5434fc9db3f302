"""A ZeroMQ socket on Trio: one pump task a socket, parked senders and receivers.

The descriptor of a ZeroMQ socket is edge-triggered and only ever readable, even for "may send":
readable means "look at EVENTS". Any operation may swallow the edge meant for another task, so
after each one EVENTS is read again and whoever can go on is woken. Only the pump waits on the
descriptor. A cancel comes before an operation or not at all: no message is lost. The socket is
closed with its scope and must never be touched from another thread.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import trio
import zmq

T = TypeVar("T")
# Plain numbers: every operation on ZeroMQ's own makes an object of its enumeration.
AT_ONCE, MAY_RECEIVE, MAY_SEND = int(zmq.DONTWAIT), int(zmq.POLLIN), int(zmq.POLLOUT)


class TrioSocket:
    """One ZeroMQ socket; see `open_socket`."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        self._fd = int(socket.getsockopt(zmq.FD))
        self._receivers = trio.lowlevel.ParkingLot()
        self._senders = trio.lowlevel.ParkingLot()
        self._is_closed = False

    async def send_multipart(self, frames: Sequence[bytes]) -> None:
        await self._retry(self._senders, lambda: self._socket.send_multipart(frames, AT_ONCE))

    def send_nowait(self, frames: Sequence[bytes]) -> bool:
        """Whether there was room. Raises `zmq.ZMQError` and `trio.ClosedResourceError`."""
        if self._is_closed:
            raise trio.ClosedResourceError
        try:
            self._socket.send_multipart(frames, AT_ONCE)
        except zmq.Again:
            return False
        finally:
            self._wake()
        return True

    async def recv_multipart(self) -> list[bytes]:
        return await self._retry(self._receivers, lambda: self._socket.recv_multipart(AT_ONCE))

    async def _retry(self, lot: trio.lowlevel.ParkingLot, operation: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            if self._is_closed:
                raise trio.ClosedResourceError
            try:
                result = operation()
            except zmq.Again:
                # A message that came in between is seen here, and no edge tells of it again.
                if not (self._wake() & MAY_RECEIVE and lot is self._receivers):
                    await lot.park()
                continue
            self._wake()
            await trio.lowlevel.cancel_shielded_checkpoint()
            return result

    def _wake(self) -> int:
        """Lets others go on; what the socket is ready for, or 0 if nobody is parked."""
        if not (self._receivers or self._senders):
            return 0
        events = int(self._socket.getsockopt(zmq.EVENTS))
        if events & MAY_RECEIVE:
            self._receivers.unpark()
        if events & MAY_SEND:
            self._senders.unpark()
        return events

    async def pump(self) -> None:
        while not self._is_closed:
            try:
                await trio.lowlevel.wait_readable(self._fd)
            except trio.ClosedResourceError:
                return
            if not self._is_closed:
                self._socket.getsockopt(zmq.EVENTS)  # consumes the edge even if nobody is parked
                self._wake()

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        trio.lowlevel.notify_closing(self._fd)
        self._receivers.unpark_all()
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
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wrapped.pump)
        try:
            yield wrapped
        finally:
            wrapped.close()
            nursery.cancel_scope.cancel()
