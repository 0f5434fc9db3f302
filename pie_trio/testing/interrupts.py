"""Ctrl-C is noticed between runs: what was found until then is told, and nothing is left running.

Owns the handler of the signal while it is open, and the main thread must open it. The first one is
only noted; whoever works asks and comes to an end. The second one is raised where it strikes.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Stop = Callable[[], bool]


def never() -> bool:
    """Nobody interrupts."""
    return False


@contextmanager
def noticing_interrupts() -> Iterator[Stop]:
    """Yields what says whether there was one."""
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if noted:
            signal.default_int_handler(number, frame)
        noted.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(noted)
    finally:
        signal.signal(signal.SIGINT, before)


def leave_interrupts_to_the_parent() -> None:
    """For the processes of a pool: a terminal tells them, too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
