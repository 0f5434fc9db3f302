"""What one guest's WASI is made of; every source of change is handed in.

Owns nothing: the sinks belong to the instance, and a guest that writes to one that is full waits
there like any other task.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from random import Random

import attrs

from pie_trio.config import Limits

Sink = Callable[[bytes], Awaitable[None]]


def _nobody_asks(_pollables: Sequence[object]) -> None:
    """The default of `waits_on`."""


@attrs.frozen(eq=False)
class WasiState:
    """The outside world as one guest sees it; host objects carry it as `wasi`."""

    stdout: Sink
    stderr: Sink
    random: Random
    wall: Callable[[], float]  # seconds since 1970
    limits: Limits = attrs.field(factory=Limits)
    # Told what the guest is about to wait for, and with nothing when it goes on.
    waits_on: Callable[[Sequence[object]], None] = _nobody_asks
