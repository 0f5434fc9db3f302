"""One instance's output on its way into one connection's outbox.

A feed owns the permission to read the instance's output while it lasts. When the connection dies,
what has not been written stays with the instance, for whoever attaches next. A message that finds
the way free goes into the outbox as the instance writes it; for all else the feed's task wakes.
The terminal event comes last and once; when it has been written, the engine may forget the
instance. A file waits a moment after the answer that made the client learn the instance's id,
because official clients lose a file that arrives together with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import attrs
import trio

from pie_trio.config import Limits
from pie_trio.messages import OutputEvent
from pie_trio.outlet import OutputReader
from pie_trio.services.chunks import content_hash, cut
from pie_trio.services.client_messages import FileChunk, ProcessEvent
from pie_trio.services.client_protocol import encode
from pie_trio.services.gateway.outbox import Outbox

FRAGMENTS = ("stdout", "stderr")  # raw pieces of text: joining two of them loses nothing
SPLITTABLE = (*FRAGMENTS, "message")
TERMINALS = ("return", "error")


@attrs.define(eq=False)
class Feed:
    """From a reader to an outbox, until the terminal event has been written."""

    process_id: str
    reader: OutputReader
    outbox: Outbox
    file_turn: trio.Lock  # two transfers of the same content must not mix on one connection
    limits: Limits
    finished: Callable[[], None]  # the terminal event has been written
    answered_at: float | None = None  # when the client was told the instance's id
    _is_idle: bool = False  # all that was written is in the outbox
    _answered: trio.Event = attrs.field(factory=trio.Event)
    _ended: trio.Event = attrs.field(factory=trio.Event)

    def answered(self) -> None:
        """The answer that tells the client the instance's id has been written."""
        self.answered_at = trio.current_time()
        self._answered.set()

    async def run(self) -> None:
        """Cancelled: what was not written stays in the buffer."""
        self.reader.at_once = self._take_at_once
        try:
            while events := await self._next_events():
                for joined in _join_fragments(events, self.limits.reply_bytes):
                    await self._send(joined)
            await self._ended.wait()
        finally:
            self.reader.detach()

    async def _next_events(self) -> list[OutputEvent]:
        self._is_idle = True
        try:
            return await self.reader.unacknowledged_events()
        finally:
            self._is_idle = False

    def _take_at_once(self, event: OutputEvent) -> bool:
        is_short = 4 * len(event.value) <= self.limits.reply_bytes
        if not (self._is_idle and event.kind == "message" and is_short):
            return False
        return self.outbox.put_nowait(self._frame(event.kind, event.value), self.reader.acknowledge)

    async def _send(self, joined: Sequence[OutputEvent]) -> None:
        """Events of one kind; more than one only if their texts may be joined."""
        event = joined[0]
        if event.kind in TERMINALS:
            await self._send_text(event.kind, event.value, self._end)
        elif event.kind == "file":
            await self._send_file(event, lambda: self.reader.acknowledge())
        else:
            text = "".join(each.value for each in joined)
            await self._send_text(event.kind, text, lambda: self.reader.acknowledge(len(joined)))

    def _end(self) -> None:
        self._ended.set()
        self.finished()

    async def _send_text(self, kind: str, text: str, left: Callable[[], None]) -> None:
        pieces = split_text(text, self.limits.reply_bytes)
        if kind not in SPLITTABLE:
            pieces = pieces[:1]  # the official clients read no more of a return value or an error
        for piece in pieces[:-1]:
            await self._put_event(kind, piece)
        await self._put_event(kind, pieces[-1], left)

    async def _put_event(
        self, kind: str, value: str, left: Callable[[], None] = lambda: None
    ) -> None:
        await self.outbox.put(self._frame(kind, value), left)

    def _frame(self, kind: str, value: str) -> bytes:
        return encode(ProcessEvent(process_id=self.process_id, event=kind, value=value))

    async def _send_file(self, event: OutputEvent, left: Callable[[], None]) -> None:
        await self._answered.wait()
        assert self.answered_at is not None, "an answer that was written has a time"
        await trio.sleep_until(self.answered_at + self.limits.file_hold_seconds)
        chunks = cut(event.data, self.limits.upload_chunk_bytes)
        digest = content_hash(event.data)
        async with self.file_turn:
            for index, data in enumerate(chunks):
                chunk = FileChunk(
                    process_id=self.process_id,
                    file_hash=digest,
                    chunk_index=index,
                    total_chunks=len(chunks),
                    chunk_data=data,
                    name=event.value or None,
                )
                is_last = index == len(chunks) - 1
                await self.outbox.put(encode(chunk), left if is_last else lambda: None)


def _join_fragments(
    events: Sequence[OutputEvent], bytes_max: int
) -> Iterator[Sequence[OutputEvent]]:
    """Neighbours of the same raw kind together, as many as fit into one message."""
    group: list[OutputEvent] = []
    size = 0
    for event in events:
        length = 4 * len(event.value)  # the most that UTF-8 makes of it
        fits = group and event.kind == group[0].kind and event.kind in FRAGMENTS
        if group and not (fits and size + length <= bytes_max):
            yield group
            group, size = [], 0
        group.append(event)
        size += length
    if group:
        yield group


def split_text(text: str, bytes_max: int) -> list[str]:
    """Pieces of at most `bytes_max` in UTF-8, cut between characters; at least one piece."""
    data = text.encode(errors="replace")
    pieces: list[str] = []
    start = 0
    while len(data) - start > bytes_max:
        end = start + bytes_max
        while data[end] & 0xC0 == 0x80:  # inside a character
            end -= 1
        pieces.append(data[start:end].decode())
        start = end
    return [*pieces, data[start:].decode()]
