"""The machine's own limits, asked like an engine: how fast it reads, how fast it multiplies.

It answers `read_bytes` and `operations`, the median of tries for a fifth of a second. The loops are
those of `benchmarks.machine`.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from speak import Answer, speak

from benchmarks.machine import Machine

SECONDS = 0.2  # a try is over in milliseconds, in which a shared core may be anything


class Limits:
    """Reads bytes and multiplies with adding, both for a moment."""

    works = ("read_bytes", "operations")

    def __init__(self, folder: Path) -> None:
        self._machine = Machine(folder)

    def facts(self) -> Answer:
        return {"engine": "the machine", "version": "", "configuration": {}}

    def read_bytes(self) -> Answer:
        return self._middle(self._machine.read_bytes_per_second)

    def operations(self) -> Answer:
        return self._middle(self._machine.operations_per_second)

    def _middle(self, measure: Callable[[], float]) -> Answer:
        until, tries = time.perf_counter() + SECONDS, []
        while not tries or time.perf_counter() < until:
            tries.append(measure())
        return {"value": statistics.median(tries)}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="pie-bench-") as folder:
        speak(lambda: Limits(Path(folder)))


if __name__ == "__main__":
    main()
