"""Why a guest ended: wasmtime's long report made into one reason that a user can read."""

from __future__ import annotations

from typing import Final

import attrs

FRAMES_SHOWN: Final = 8


@attrs.define
class GuestExit(Exception):
    """The guest asked to be ended; not a failure of anybody's if `ok`."""

    ok: bool


def reason_of(report: str) -> str:
    """The root cause first, then the innermost frames of the guest."""
    lines = report.splitlines()
    frames = [line.strip() for line in lines if _is_frame(line)]
    causes = [line.strip() for line in lines if line.strip() and not _is_frame(line)]
    cause = causes[-1] if causes else "the guest trapped without a reason"
    return "\n".join([cause.removeprefix("wasm trap: "), *frames[:FRAMES_SHOWN]])


def _is_frame(line: str) -> bool:
    number, colon, rest = line.strip().partition(":")
    return number.isdigit() and bool(colon) and rest.lstrip().startswith("0x")
