"""What a guest told its client, put together again from its host calls.

A replay has no outlet: the calls that write are the output. Bytes of the two streams may be cut
anywhere, so the end of a character that has not come is kept back. Nothing here waits or decides.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

from pie_trio.events import InstanceFinished
from pie_trio.messages import OutputEvent

OPENING: Final = {
    "wasi:cli/stdout#get-stdout": "stdout",
    "wasi:cli/stderr#get-stderr": "stderr",
}
WRITING: Final = (
    "wasi:io/streams#[method]output-stream.write",
    "wasi:io/streams#[method]output-stream.blocking-write-and-flush",
)
MAKE_BLOB: Final = "inferlet:core/common#[constructor]blob"
SEND_BLOB: Final = "inferlet:core/message#send-blob"
OUTPUT_CALLS: Final = frozenset({*OPENING, *WRITING, MAKE_BLOB, SEND_BLOB})  # but for messages


@attrs.define(eq=False)
class OutputOfCalls:
    """Told of each call that was answered; tells what a client would have seen."""

    listener: Callable[[OutputEvent], None]
    value: str = ""
    _kinds: dict[int, str] = attrs.field(factory=dict)  # number of a stream -> stdout or stderr
    _blobs: dict[int, bytes] = attrs.field(factory=dict)
    _decoders: dict[str, codecs.IncrementalDecoder] = attrs.field(factory=dict)

    def note(self, function: str, values: Sequence[Any], answer: Any) -> None:
        if function in OPENING:
            self._kinds[answer.number] = OPENING[function]
        elif function in WRITING:
            self._write(self._kinds.get(values[0].number, "stdout"), values[1])
        elif function == "inferlet:core/message#send":
            self.listener(OutputEvent("message", values[0]))
        elif function == "inferlet:core/runtime#set-return":
            self.value = values[0]
        elif function == MAKE_BLOB:
            self._blobs[answer.number] = values[0]
        elif function == SEND_BLOB:
            self.listener(OutputEvent("file", "", self._blobs.pop(values[0].number, b"")))

    def end(self, ending: InstanceFinished) -> None:
        """The terminal event."""
        returned = ending.outcome == "return"
        event = (
            OutputEvent("return", self.value) if returned else OutputEvent("error", ending.reason)
        )
        self.listener(event)

    def _write(self, kind: str, data: bytes) -> None:
        if kind not in self._decoders:
            self._decoders[kind] = codecs.getincrementaldecoder("utf-8")(errors="replace")
        text = self._decoders[kind].decode(data)
        if text:
            self.listener(OutputEvent(kind, text))
