"""What waits to be written to one client: a queue of frames, bounded in bytes.

It owns frames that nobody has written yet. Full, it makes those wait who want to tell this client
something, in order, and nobody else. Whoever put a frame in learns when it has left; when the
connection dies first, nobody is told, so that nothing counts as delivered that was not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import attrs
import trio


def _nobody() -> None:
    """Nobody asks whether this frame has left."""


@attrs.frozen
class Parcel:
    """A frame, and whom to tell when it has left."""

    frame: bytes
    left: Callable[[], None]
    is_reply: bool


class Outbox:
    """Many put, one takes."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._parcels: deque[Parcel] = deque()
        self._bytes = 0
        self._unwritten = 0  # parcels waiting here or taken and not written yet
        self._turn = trio.StrictFIFOLock()
        self._filled = trio.lowlevel.ParkingLot()  # who waits for a parcel,
        self._replied = trio.lowlevel.ParkingLot()  # for a reply,
        self._emptied = trio.lowlevel.ParkingLot()  # for room,
        self._all_written = trio.lowlevel.ParkingLot()  # for the end

    async def put(
        self, frame: bytes, left: Callable[[], None] = _nobody, *, is_reply: bool = False
    ) -> None:
        """Cancelled: the frame was not put in. With room and nobody before it, it never waits."""
        if self.put_nowait(frame, left, is_reply=is_reply):
            return
        async with self._turn:
            while not self._has_room(frame):
                await self._emptied.park()
            self._append(Parcel(frame, left, is_reply))

    def put_nowait(
        self, frame: bytes, left: Callable[[], None] = _nobody, *, is_reply: bool = False
    ) -> bool:
        """False: there is no room, or somebody waits for it; nothing was put in."""
        if self._turn.locked() or not self._has_room(frame):
            return False
        self._append(Parcel(frame, left, is_reply))
        return True

    def _has_room(self, frame: bytes) -> bool:
        # A frame that is larger than the bound passes when it is alone.
        return not self._parcels or self._bytes + len(frame) <= self._bytes_max

    def _append(self, parcel: Parcel) -> None:
        self._parcels.append(parcel)
        self._bytes += len(parcel.frame)
        self._unwritten += 1
        if self._filled:
            self._filled.unpark_all()
        if parcel.is_reply:
            self._replied.unpark_all()

    async def wait_until_filled(self) -> None:
        while not self._parcels:
            await self._filled.park()

    def take(self) -> list[Parcel]:
        """All that is there; `written` must follow."""
        parcels = list(self._parcels)
        self._parcels.clear()
        self._bytes = 0
        self._emptied.unpark_all()
        return parcels

    def written(self, parcels: list[Parcel]) -> None:
        self._unwritten -= len(parcels)
        for parcel in parcels:
            parcel.left()
        if not self._unwritten:
            self._all_written.unpark_all()

    async def wait_for_reply(self) -> None:
        """Until a reply waits here: events can be late by a little, answers should not be."""
        while not any(parcel.is_reply for parcel in self._parcels):
            await self._replied.park()

    async def wait_until_written(self) -> None:
        while self._unwritten:
            await self._all_written.park()
