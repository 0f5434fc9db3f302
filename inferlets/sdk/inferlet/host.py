"""The kit's only way to wait: pollables of the host, awaited on the program's own loop.

Everything that the host finishes later (passes, queries, messages) gives a pollable. A pollable is
closed when its waiting ends, also when the waiting task is cancelled.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any, Protocol, cast

from wit_world.imports import monotonic_clock
from wit_world.imports import poll as wasi_poll

from inferlet.loop import HostLoop

NANOSECONDS = 1_000_000_000
HORIZON = 2.0**63  # nanoseconds or milliseconds: no wait is longer


class Pending(Protocol):
    """A host object that becomes ready later."""

    def pollable(self) -> Any: ...


async def settled(pending: Pending) -> None:
    """Returns when `pending` has its answer."""
    loop = cast("HostLoop", asyncio.get_running_loop())
    with pending.pollable() as pollable:
        await loop.wait(pollable)


def in_milliseconds(seconds: float | None) -> int | None:
    """A bound of time as the host wants it; none stays none."""
    return None if seconds is None else round(min(max(seconds * 1000, 0), HORIZON))


def utf8(text: str) -> str:
    """The same text. One that is no UTF-8, with half of a surrogate pair, is a
    `UnicodeEncodeError` here; handed to the host, it would end the program."""
    text.encode()
    return text


class OnlyOne:
    """Around what must not run twice at the same time."""

    def __init__(self, complaint: str) -> None:
        self._complaint = complaint
        self._is_running = False

    def __enter__(self) -> None:
        if self._is_running:
            raise RuntimeError(self._complaint)
        self._is_running = True

    def __exit__(self, *_: object) -> None:
        self._is_running = False


class HostPoller:
    """The host's clock and its poll, as the loop wants them."""

    def now(self) -> float:
        return monotonic_clock.now() / NANOSECONDS

    def poll(self, pollables: Sequence[Any], until: float | None) -> list[int]:
        if until is None:
            return list(wasi_poll.poll(list(pollables)))
        # Rounded up, so that the clock has reached `until` when the timer wakes us.
        instant = math.ceil(min(until * NANOSECONDS, HORIZON)) + 1
        with monotonic_clock.subscribe_instant(instant) as timer:
            places = wasi_poll.poll([*pollables, timer])
        return [place for place in places if place < len(pollables)]
