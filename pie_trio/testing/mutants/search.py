"""Looks for what a mutant breaks, in the mutant's own process: plainly, by seeds, by cancellations.

Each run is announced before it begins, so that whoever reads knows which one stood still; an alarm
of the system ends this process then, even in the middle of compiled code. It stops at the first
violation.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from time import perf_counter
from types import MappingProxyType
from typing import Any, Final, TextIO

import attrs

from pie_trio.testing.faults import KINDS, Faults
from pie_trio.testing.simulation import Simulation

STANDSTILL_SECONDS = 30  # of real time, for one run
PLAIN_SEED = 0
# What can go wrong in the area of a ground; the swarm draws its subsets from these.
KINDS_OF: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "page-traffic": ("kill", "limits", "worker", "memory", "stop", "net", "jitter"),
        "pass-traffic": ("kill", "limits", "worker", "jitter"),
        "lives": ("kill", "worker", "stop", "net", "jitter"),
        "links": ("link", "worker", "jitter"),
        "airlock": ("kill", "limits", "worker", "net", "jitter"),
        "front-door": ("net", "limits", "kill", "jitter"),
    }
)
# Those in which clients and guests behave: nobody is ended from outside, nobody breaks a rule.
PLAIN: Final = (
    *("decode", "branches", "sharing", "talking", "keys"),
    *("attach", "pressure", "two-models", "real"),
)


def search(task: dict[str, Any], out: TextIO) -> None:
    """The whole task; `out` gets a line for each run, and another when it broke something."""
    search = _Search(out)
    for name in PLAIN:
        search.run("plain", name, Simulation(PLAIN_SEED, (), name, "fifo"))
    search.begin(task["seconds"])
    for seed in range(1, task["seeds"] + 1):
        if search.is_over:
            return
        faults = Faults(KINDS_OF.get(task["ground"], KINDS))
        search.run("seeds", f"seed {seed}", Simulation(seed, faults, task["ground"]))


@attrs.define(eq=False)
class _Search:
    """What has been found so far. Broken plain scenarios do not end it."""

    out: TextIO
    has_found: bool = False
    _until: float = 0.0

    def begin(self, seconds: float) -> None:
        self.has_found = False
        self._until = perf_counter() + seconds

    @property
    def is_over(self) -> bool:
        return self.has_found or perf_counter() > self._until

    def run(self, method: str, where: str, simulation: Simulation) -> None:
        signal.alarm(STANDSTILL_SECONDS)
        self._say({"method": method, "where": where})
        wrong = simulation.run().violations
        if wrong:
            self.has_found = True
            self._say({"wrong": list(wrong)})
        signal.alarm(0)

    def _say(self, line: dict[str, Any]) -> None:
        self.out.write(json.dumps(line) + "\n")
        self.out.flush()
