"""`wasi:cli` and the list of preopened directories: a guest sees no arguments, no environment,
no terminal and no files.

Its arguments come through `inferlet:core/runtime`. `exit` ends the guest, not the process: cleanly
when the status is ok, else as its own fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NoReturn

from pie_trio.wasm.codec import Err
from pie_trio.wasm.faults import GuestExit
from pie_trio.wasm.wasi.streams import InputStream, OutputStream


def _nothing(_host: Any) -> list[Any]:
    return []


def _none(_host: Any) -> None:
    return None


def _exit(_host: Any, status: Any) -> NoReturn:
    raise GuestExit(not isinstance(status, Err))


def _stdin(_host: Any) -> InputStream:
    return InputStream()


def _stdout(host: Any) -> OutputStream:
    return OutputStream(host.wasi.stdout)


def _stderr(host: Any) -> OutputStream:
    return OutputStream(host.wasi.stderr)


ENVIRONMENT: Final[Mapping[str, Any]] = {
    "get-environment": _nothing,
    "get-arguments": _nothing,
    "initial-cwd": _none,
}
EXIT: Final[Mapping[str, Any]] = {"exit": _exit}
STDIN: Final[Mapping[str, Any]] = {"get-stdin": _stdin}
STDOUT: Final[Mapping[str, Any]] = {"get-stdout": _stdout}
STDERR: Final[Mapping[str, Any]] = {"get-stderr": _stderr}
TERMINAL_STDIN: Final[Mapping[str, Any]] = {"get-terminal-stdin": _none}
TERMINAL_STDOUT: Final[Mapping[str, Any]] = {"get-terminal-stdout": _none}
TERMINAL_STDERR: Final[Mapping[str, Any]] = {"get-terminal-stderr": _none}
PREOPENS: Final[Mapping[str, Any]] = {"get-directories": _nothing}
