"""A stream that gives up on a peer that reads nothing, and that several tasks may write to.

It owns the bytes that were sent into it and not written yet. A peer that takes no piece for the
stall time is gone: the stream breaks, and nobody else has waited. It never reorders bytes.
"""

from __future__ import annotations

import trio

PIECE_BYTES = 64 * 1024  # a peer must take so much within the stall time


class PatientStream(trio.abc.Stream):
    """Cancelled while it writes: the stream is broken, as every stream is then."""

    def __init__(self, stream: trio.abc.Stream, stall_seconds: float) -> None:
        self._stream = stream
        self._stall_seconds = stall_seconds
        self._pending = bytearray()
        self._turn = trio.StrictFIFOLock()
        self.is_stalled = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._pending += data
        if self._turn.locked():
            await self._turn.acquire()
        else:
            self._turn.acquire_nowait()  # the write below is checkpoint enough
        try:
            while self._pending:
                piece = bytes(self._pending[:PIECE_BYTES])
                del self._pending[:PIECE_BYTES]
                await self._write(piece)
        finally:
            self._turn.release()

    async def _write(self, piece: bytes) -> None:
        with trio.move_on_after(self._stall_seconds) as patience:
            await self._stream.send_all(piece)
        if patience.cancelled_caught:
            self.is_stalled = True
            raise trio.BrokenResourceError("the client reads nothing")

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()
