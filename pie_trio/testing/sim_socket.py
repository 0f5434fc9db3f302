"""A ZeroMQ ROUTER with one peer, without ZeroMQ: what `TrioSocket` touches, and nothing else.

It keeps the traps of the real one: its descriptor is only ever readable, it is edge-triggered, and
any operation swallows the edge. It owns a descriptor of the system, given back when it is closed.
Messages that came before the peer died are still received, as with the real one.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence

import attrs
import zmq

Frames = list[bytes]


@attrs.define(eq=False)
class SimSocket:
    """Handed to `TrioSocket` in the place of a `zmq.Socket`."""

    on_send: Callable[[Frames], None]  # to the peer
    send_fault: Callable[[], int]  # an error number of ZeroMQ, or 0
    _inbox: deque[Frames] = attrs.field(factory=deque, init=False)
    _fd: int = attrs.field(factory=lambda: os.eventfd(0, os.EFD_NONBLOCK), init=False)
    is_closed: bool = attrs.field(default=False, init=False)
    _is_busy: bool = attrs.field(default=False, init=False)

    # --- what `TrioSocket` calls

    def getsockopt(self, option: int) -> int:
        if option == zmq.FD:
            return self._fd
        assert option == zmq.EVENTS, "nothing else is asked"
        self._swallow_edge()
        events = 0 if self._is_busy else int(zmq.POLLOUT)
        return events | (int(zmq.POLLIN) if self._inbox else 0)

    def send_multipart(self, frames: Sequence[bytes], _flags: int) -> None:
        self._swallow_edge()
        if self._is_busy:
            raise zmq.Again
        number = self.send_fault()
        if number == zmq.EAGAIN:
            self._is_busy = True
            raise zmq.Again
        if number:
            raise zmq.ZMQError(number)
        self.on_send([bytes(frame) for frame in frames])

    def recv_multipart(self, _flags: int) -> Frames:
        self._swallow_edge()
        if not self._inbox:
            raise zmq.Again
        return self._inbox.popleft()

    def close(self, *, linger: int) -> None:
        assert linger == 0, "nobody waits for a message to a worker that is gone"
        if not self.is_closed:
            self.is_closed = True
            os.close(self._fd)

    # --- what the peer does

    def deliver(self, frames: Frames) -> None:
        if not self.is_closed:
            self._inbox.append(frames)
            self._raise_edge()

    def make_room(self) -> None:
        """It takes messages again."""
        if self._is_busy and not self.is_closed:
            self._is_busy = False
            self._raise_edge()

    def _raise_edge(self) -> None:
        os.eventfd_write(self._fd, 1)

    def _swallow_edge(self) -> None:
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            return  # there was none
