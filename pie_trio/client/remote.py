"""One instance at the server, as its client holds it: its events in order, and what it is told.

It owns the events that arrived and nobody read, bounded in bytes: an instance that nobody reads
loses its further output, with an error that says so, and delays nobody else. After the terminal
event, or after the connection died, nothing more comes; a reader never waits for ever.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

import attrs
import trio

from pie_trio.client.errors import RemoteError, ServerGone
from pie_trio.config import Limits
from pie_trio.errors import PieError, TooMany
from pie_trio.messages import OutputEvent
from pie_trio.outlet import event_bytes
from pie_trio.services.chunks import Assembly, content_hash, cut
from pie_trio.services.client_messages import (
    FileChunk,
    ProcessEvent,
    Request,
    SignalProcess,
    TerminateProcess,
    TransferFile,
)

TERMINALS = ("return", "error")
PRINTED = ("stdout", "message")


class Link(Protocol):
    """What an instance needs of its connection."""

    async def tell(self, message: SignalProcess | TransferFile) -> None: ...
    async def ask(self, message: Request) -> str: ...
    def next_number(self) -> int: ...


@attrs.define(eq=False)
class RemoteInstance:
    """Iterate over it for its events, the terminal one included; or await `result`."""

    id: str
    program: str
    _link: Link
    _limits: Limits
    output: str = ""  # what `result` has seen of stdout and messages
    _events: deque[OutputEvent] = attrs.field(factory=deque)
    _bytes: int = 0
    _ending: PieError | None = None  # raised when the events before it have been read
    _has_ended: bool = False
    _assemblies: dict[str, Assembly] = attrs.field(factory=dict)
    _changed: trio.Event = attrs.field(factory=trio.Event)

    def __aiter__(self) -> RemoteInstance:
        return self

    async def __anext__(self) -> OutputEvent:
        """Raises `ServerGone` if the connection ends first. Cancelled: no event is lost."""
        await trio.lowlevel.checkpoint()
        while not self._events:
            if self._ending is not None:
                raise self._ending
            if self._has_ended:
                raise StopAsyncIteration
            await self._changed.wait()
        event = self._events.popleft()
        self._bytes -= event_bytes(event)
        return event

    async def result(self) -> str:
        """What the program returned, or `RemoteError`. The output meanwhile goes to `output`."""
        async for event in self:
            if event.kind == "return":
                return event.value
            if event.kind == "error":
                raise RemoteError(event.value)
            if event.kind in PRINTED:
                self.output += event.value
        raise ServerGone("the result was already read")

    async def send(self, text: str) -> None:
        """A message for the program. There is no answer; a full inbox drops it at the server."""
        await self._link.tell(SignalProcess(process_id=self.id, message=text))

    async def send_blob(self, data: bytes) -> None:
        """Cancelled: the program gets nothing."""
        chunks = cut(data, self._limits.upload_chunk_bytes)
        digest = content_hash(data)
        for index, chunk in enumerate(chunks):
            message = TransferFile(
                process_id=self.id,
                file_hash=digest,
                chunk_index=index,
                total_chunks=len(chunks),
                chunk_data=chunk,
            )
            await self._link.tell(message)

    async def terminate(self) -> None:
        """The terminal event then says `error` with the text `Signal`."""
        number = self._link.next_number()
        await self._link.ask(TerminateProcess(corr_id=number, process_id=self.id))

    @property
    def has_ended(self) -> bool:
        """The terminal event has arrived; it may still wait to be read."""
        return self._has_ended

    def arrive(self, message: ProcessEvent | FileChunk) -> None:
        """Called by the connection, in order; never waits."""
        if self._has_ended or self._ending is not None:
            return
        if isinstance(message, FileChunk):
            self._arrive_file(message)
        else:
            self._append(OutputEvent(message.event, message.value))

    def fail(self, error: PieError) -> None:
        """No more events will come."""
        if not self._has_ended and self._ending is None:
            self._ending = error
            self._announce()

    def _arrive_file(self, chunk: FileChunk) -> None:
        key = chunk.file_hash
        # Taken out and put back only after success: a transfer that broke a rule is gone.
        assembly = self._assemblies.pop(key, None) or Assembly(key, self._limits.upload_bytes)
        try:
            data = assembly.add(chunk.chunk_index, chunk.total_chunks, chunk.chunk_data)
        except PieError as error:
            self.fail(error)
            return
        if data is None:
            self._assemblies[key] = assembly
        else:
            self._append(OutputEvent("file", chunk.name or "", data))

    def _append(self, event: OutputEvent) -> None:
        size = event_bytes(event)
        self._has_ended = event.kind in TERMINALS
        if not self._has_ended and self._bytes + size > self._limits.client_events_bytes:
            self.fail(TooMany(f"client_events_bytes: {self._bytes} bytes of output are unread"))
            return
        self._events.append(event)
        self._bytes += size
        self._announce()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
