"""What one simulated run did: plain data, so that it travels between processes and into reports.

Owns nothing and judges nothing; the run that made it is over.
"""

from __future__ import annotations

from collections import Counter

import attrs

from pie_trio.events import Event
from pie_trio.testing.faults import Fault
from pie_trio.testing.scheduler import Mode
from pie_trio.testing.world import Launch


@attrs.frozen
class Outcome:
    """What one run did. `violations` is empty when every rule held."""

    seed: int
    scenario: str
    scheduler: Mode
    faults: tuple[Fault, ...]
    fired: tuple[Fault, ...]
    violations: tuple[str, ...]
    timeline: tuple[Event, ...]
    steps: int
    digest: int
    picks: tuple[int, ...]
    reached: Counter[str]
    limits: dict[str, float]
    launches: tuple[Launch, ...]
    seconds: float  # virtual

    @property
    def failed(self) -> bool:
        return bool(self.violations)
