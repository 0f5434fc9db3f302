"""The machine's own limits, asked like an engine: how fast it reads, how fast it multiplies.

It answers `limits` and nothing else. The loops are those of `benchmarks.machine`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from speak import Answer, speak

from benchmarks.machine import Machine

TRIES = 5


class Limits:
    """Reads bytes and multiplies with adding, both for a moment."""

    works = ("limits",)

    def __init__(self, folder: Path) -> None:
        self._machine = Machine(folder)

    def facts(self) -> Answer:
        return {"engine": "the machine", "version": "", "configuration": {}}

    def limits(self) -> Answer:
        """The best of a few: what disturbs can only make them smaller."""
        machine = self._machine
        return {
            "read_bytes": max(machine.read_bytes_per_second() for _ in range(TRIES)),
            "operations": max(machine.operations_per_second() for _ in range(TRIES)),
        }


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="pie-bench-") as folder:
        speak(lambda: Limits(Path(folder)))


if __name__ == "__main__":
    main()
