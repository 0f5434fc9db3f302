"""The output of one instance on its way to a client: a bounded queue with one reader at a time.

It owns what was written and not read yet. A full buffer makes the writer wait, and only it; with
nobody attached it waits for a limited time. A reader that dies leaves what it had not acknowledged
to the next one. The terminal event is never bounded, comes last, and stays readable for as long as
the buffer lives. It never drops an event that was accepted, and never reorders two of them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from itertools import islice

import attrs
import trio

from pie_trio.config import Limits
from pie_trio.errors import BadRequest, GuestFault
from pie_trio.messages import OutputEvent

EVENT_OVERHEAD_BYTES = 64  # so that empty events count too


def event_bytes(event: OutputEvent) -> int:
    """What an event counts against the bound."""
    return EVENT_OVERHEAD_BYTES + len(event.value.encode()) + len(event.data)


class OutputBuffer:
    """Implements `handles.Outlet`. Events are kept until a reader acknowledges them."""

    def __init__(self, limits: Limits, *, capture: bool = True) -> None:
        self._limits = limits
        self._capture = capture
        self._events: deque[OutputEvent] = deque()
        self._sizes: deque[int] = deque()  # of those events
        self._bytes = 0
        self._terminal: OutputEvent | None = None
        self._reader: OutputReader | None = None
        self._turn = trio.StrictFIFOLock()
        # Who waits until there is something to read or the reader has gone; for room, or another
        # bound.
        self._readers, self._writers = trio.lowlevel.ParkingLot(), trio.lowlevel.ParkingLot()

    @property
    def is_attached(self) -> bool:
        return self._reader is not None

    @property
    def is_closed(self) -> bool:
        return self._terminal is not None

    @property
    def waiting_bytes(self) -> int:
        return self._bytes

    async def put(self, event: OutputEvent) -> None:
        """Cancelled: the event was not written. With room and nobody before it, it never waits."""
        size = event_bytes(event)
        if not self._turn.locked() and self._has_room(size):
            if self._is_wanted():
                self._write(event, size)
            return
        async with self._turn:
            if self._is_wanted():
                await self._wait_for_room(size)
                self._write(event, size)

    def _write(self, event: OutputEvent, size: int) -> None:
        assert self._terminal is None, "nothing is written after the terminal event"
        self._events.append(event)
        self._sizes.append(size)
        self._bytes += size
        if self._reader is None or not self._reader.takes_at_once(event):
            self._readers.unpark_all()

    def close(self, terminal: OutputEvent) -> None:
        """The one terminal event; synchronous, so that nothing can come between."""
        assert self._terminal is None, "an output ends only once"
        self._terminal = terminal
        self._tell_everybody()

    def attach(self) -> OutputReader:
        if self._reader is not None:
            raise BadRequest("somebody else is attached to this instance; only one client can be")
        self._reader = OutputReader(self)
        self._writers.unpark_all()
        return self._reader

    def _is_wanted(self) -> bool:
        return self._capture or self._reader is not None

    def _bound(self) -> int:
        limits = self._limits
        return limits.outbox_bytes if self._reader is not None else limits.detached_output_bytes

    def _has_room(self, size: int) -> bool:
        # An event that is larger than the bound passes when it is alone.
        return not self._events or self._bytes + size <= self._bound()

    async def _wait_for_room(self, size: int) -> None:
        while not self._has_room(size):
            attached = self.is_attached
            patience = math.inf if attached else self._limits.detached_write_seconds
            with trio.move_on_after(patience) as scope:
                while attached == self.is_attached and not self._has_room(size):
                    await self._writers.park()
            if scope.cancelled_caught:
                raise GuestFault(
                    f"nobody attached for {patience:g} s to read the output, which is full "
                    f"({self._bytes} of {self._bound()} bytes)"
                )

    def _tell_everybody(self) -> None:
        self._readers.unpark_all()
        self._writers.unpark_all()

    def _acknowledge(self, count: int) -> None:
        for _ in range(count):
            self._events.popleft()
            self._bytes -= self._sizes.popleft()
        if self._writers:
            self._writers.unpark_all()

    def _release(self) -> None:
        self._reader = None
        self._tell_everybody()


@attrs.define(eq=False)
class OutputReader:
    """The permission to read one buffer, until `detach`."""

    _buffer: OutputBuffer
    at_once: Callable[[OutputEvent], bool] | None = None  # may take an event as it is written
    _shown: int = 0  # events at the buffer's head that were handed out and not acknowledged
    _shown_terminal: bool = False
    _detached: bool = False

    async def next_events(self) -> list[OutputEvent]:
        """All that is there, waiting for the first; acknowledged at once. `[]`: it was all."""
        events = await self.unacknowledged_events()
        self.acknowledge(self._shown)
        return events

    async def unacknowledged_events(self) -> list[OutputEvent]:
        """Like `next_events`, but each event stays in the buffer until `acknowledge`."""
        if self.is_readable:  # else the wait below lets others run
            await trio.lowlevel.checkpoint()
        while True:
            assert not self._detached, "a detached reader reads no more"
            events = self._fresh()
            if events or self._shown_terminal:
                return events
            if self._buffer._terminal is not None:
                self._shown_terminal = True
                return [self._buffer._terminal]
            await self._buffer._readers.park()

    def takes_at_once(self, event: OutputEvent) -> bool:
        """Whether the newest event has been handed out without waking anybody."""
        is_next = len(self._buffer._events) == self._shown + 1
        if self.at_once is None or not is_next or not self.at_once(event):
            return False
        self._shown += 1
        return True

    @property
    def is_readable(self) -> bool:
        """Whether there is an event that was not handed out, or none will come any more."""
        return len(self._buffer._events) > self._shown or self._buffer.is_closed

    async def wait_changed(self) -> None:
        """Until something was written, or the buffer was closed or let go of."""
        await self._buffer._readers.park()

    def take(self) -> OutputEvent | None:
        """The oldest event, acknowledged at once; none if there is none. Never the terminal one."""
        assert self._shown == 0, "whoever takes leaves nothing to acknowledge"
        if self._detached or not self._buffer._events:
            return None
        event = self._buffer._events[0]
        self._buffer._acknowledge(1)
        return event

    def acknowledge(self, count: int = 1) -> None:
        """The oldest `count` events handed out have left; the terminal needs no acknowledging.

        After `detach` it changes nothing: the events belong to the next reader.
        """
        if self._detached:
            return
        assert count <= self._shown, "only what was handed out can be acknowledged"
        self._shown -= count
        self._buffer._acknowledge(count)

    def detach(self) -> None:
        """What was not acknowledged stays for the next reader."""
        if not self._detached:
            self._detached = True
            self._buffer._release()

    def _fresh(self) -> list[OutputEvent]:
        buffer = self._buffer
        events = list(islice(buffer._events, self._shown, None))
        self._shown += len(events)
        terminal = buffer._terminal
        if events and terminal is not None:
            self._shown_terminal = True
            events.append(terminal)
        return events
