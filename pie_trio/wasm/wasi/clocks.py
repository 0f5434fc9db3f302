"""`wasi:clocks`: the monotonic clock is Trio's, the wall clock is handed in.

So a test that replaces Trio's clock moves its guests' time as well, and nothing here ever reads
the machine's time by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import trio

from pie_trio.wasm.wasi.poll import Deadline

NANOSECONDS: Final = 1_000_000_000
RESOLUTION_NANOSECONDS: Final = 1000


def _now(_host: Any) -> int:
    return int(trio.current_time() * NANOSECONDS)


def _resolution(_host: Any) -> int:
    return RESOLUTION_NANOSECONDS


def _subscribe_instant(_host: Any, when: int) -> Deadline:
    return Deadline(when / NANOSECONDS)


def _subscribe_duration(_host: Any, duration: int) -> Deadline:
    return Deadline(trio.current_time() + duration / NANOSECONDS)


def _wall_now(host: Any) -> dict[str, int]:
    seconds, nanoseconds = divmod(int(host.wasi.wall() * NANOSECONDS), NANOSECONDS)
    return {"seconds": seconds, "nanoseconds": nanoseconds}


def _wall_resolution(_host: Any) -> dict[str, int]:
    return {"seconds": 0, "nanoseconds": RESOLUTION_NANOSECONDS}


MONOTONIC: Final[Mapping[str, Any]] = {
    "now": _now,
    "resolution": _resolution,
    "subscribe-instant": _subscribe_instant,
    "subscribe-duration": _subscribe_duration,
}

WALL: Final[Mapping[str, Any]] = {"now": _wall_now, "resolution": _wall_resolution}
