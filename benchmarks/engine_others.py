"""Who else used the machine during a measurement: what makes figures of a run worse than they are.

Reads /proc only. A share of 1.0 is one core, all the time.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import attrs

from benchmarks.engine_link import descendants

BUSY_FIELDS = (0, 1, 2, 5, 6)  # user, nice, system, irq, softirq in the first line of /proc/stat
STEAL_FIELD = 7


@attrs.frozen
class Moment:
    """Seconds of processor time since the start of the machine, and of this program's family."""

    at: float
    busy: float
    stolen: float
    ours: float

    @classmethod
    def now(cls) -> Moment:
        tick = os.sysconf("SC_CLK_TCK")
        fields = [int(each) for each in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
        family = (os.getpid(), *descendants(os.getpid()))
        return cls(
            time.monotonic(),
            sum(fields[index] for index in BUSY_FIELDS) / tick,
            fields[STEAL_FIELD] / tick,
            sum(_ticks(pid) for pid in family) / tick,
        )

    def since(self, earlier: Moment) -> dict[str, float]:
        """How many cores strangers used, and how many the host took away."""
        wall = max(self.at - earlier.at, 1e-9)
        strangers = (self.busy - earlier.busy) - (self.ours - earlier.ours)
        return {
            "others": max(strangers, 0.0) / wall,
            "stolen": (self.stolen - earlier.stolen) / wall,
        }


def _ticks(pid: int) -> int:
    """With those of its children that have ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace")
    except OSError:
        return 0
    return sum(int(each) for each in stat[stat.rindex(")") + 2 :].split()[11:15])
