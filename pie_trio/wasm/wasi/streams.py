"""`wasi:io/streams` and `wasi:io/error`: standard output and error go to sinks, input is closed.

A write is awaited by the guest that writes, so a full sink holds up the writer and nobody else.
Nothing is buffered here; what the guest was told to be written has been taken by the sink.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from pie_trio.errors import GuestFault
from pie_trio.wasm.codec import Case, Err
from pie_trio.wasm.wasi.poll import Ready
from pie_trio.wasm.wasi.state import Sink

WRITE_PERMITTED: Final = 65_536  # what `check-write` answers
ZEROES_MAX: Final = 4096  # by the standard


@attrs.frozen(eq=False)
class OutputStream:
    """Bytes for a sink."""

    sink: Sink


@attrs.frozen(eq=False)
class InputStream:
    """Standard input: at its end from the start."""


def _closed(_host: Any, _stream: InputStream, _length: int) -> Err:
    return Err(Case("closed"))


def _check_write(_host: Any, _stream: OutputStream) -> int:
    return WRITE_PERMITTED


async def _write(_host: Any, stream: OutputStream, data: bytes) -> None:
    if len(data) > WRITE_PERMITTED:
        raise GuestFault(f"wasi:io/streams: {len(data)} bytes at once, {WRITE_PERMITTED} permitted")
    if data:
        await stream.sink(data)


async def _write_zeroes(_host: Any, stream: OutputStream, length: int) -> None:
    if length > ZEROES_MAX:
        raise GuestFault(f"wasi:io/streams: {length} zeroes at once, {ZEROES_MAX} permitted")
    await stream.sink(bytes(length))


def _flush(_host: Any, _stream: OutputStream) -> None:
    """Nothing is ever held back."""


def _subscribe(_host: Any, _stream: Any) -> Ready:
    return Ready()


def _to_debug_string(_host: Any, error: Any) -> str:
    return str(error)


STREAMS: Final[Mapping[str, Any]] = {
    "[method]input-stream.read": _closed,
    "[method]input-stream.blocking-read": _closed,
    "[method]input-stream.skip": _closed,
    "[method]input-stream.blocking-skip": _closed,
    "[method]input-stream.subscribe": _subscribe,
    "[method]output-stream.check-write": _check_write,
    "[method]output-stream.write": _write,
    "[method]output-stream.blocking-write-and-flush": _write,
    "[method]output-stream.write-zeroes": _write_zeroes,
    "[method]output-stream.blocking-write-zeroes-and-flush": _write_zeroes,
    "[method]output-stream.flush": _flush,
    "[method]output-stream.blocking-flush": _flush,
    "[method]output-stream.subscribe": _subscribe,
}

ERROR: Final[Mapping[str, Any]] = {"[method]error.to-debug-string": _to_debug_string}
