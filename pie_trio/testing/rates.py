"""How fast the scripted profile is beside another simulator, measured in turns in the same run.

Each side is a process of its own that lives as long as the measurement; only one of them computes
at a time, and who begins changes from round to round. Keeps the samples as they were; whatever ends
the measurement, both processes are gone.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import attrs

from pie_trio.errors import BadConfig
from pie_trio.testing import rate_child

SIDES: Final = ("scripted", "prototype")
ROUNDS: Final = 60
SEEDS_A_ROUND: Final = 10
Sample = dict[str, float]


class MeasureBroken(Exception):
    """One of the two sides died; this says nothing about any rate."""


@attrs.frozen
class Rates:
    """The samples of both sides, a round a sample."""

    samples: dict[str, list[Sample]]

    def per_second(self, side: str, what: str) -> float:
        """Of CPU time."""
        samples = self.samples[side]
        return sum(s[what] for s in samples) / sum(s["seconds"] for s in samples)

    def per_scenario(self, side: str, what: str) -> float:
        samples = self.samples[side]
        return sum(s[what] for s in samples) / sum(s["scenarios"] for s in samples)

    def ratios(self, what: str) -> list[float]:
        """Ours to the other's, round by round."""
        mine, theirs = (self.samples[side] for side in SIDES)
        return [
            (m[what] / m["seconds"]) / (t[what] / t["seconds"])
            for m, t in zip(mine, theirs, strict=True)
        ]

    def text(self) -> str:
        lines = [
            f"{side}: {self.per_second(side, 'scenarios'):.1f} scenarios and"
            f" {self.per_second(side, 'steps'):.0f} steps a CPU second;"
            f" {self.per_scenario(side, 'steps'):.0f} steps and"
            f" {self.per_scenario(side, 'passes'):.1f} passes a scenario"
            for side in SIDES
        ]
        for what in ("scenarios", "steps", "passes"):
            ratios = self.ratios(what)
            lines.append(
                f"{what} beside the prototype's: {statistics.median(ratios):.2f}"
                f" [{min(ratios):.2f}, {max(ratios):.2f}] over {len(ratios)} rounds"
            )
        return "\n".join(lines)


def demand_simulator(directory: Path) -> None:
    """Raises `BadConfig` when there is none."""
    if not (directory / "sim.py").is_file():
        raise BadConfig(f"{directory} has no sim.py")


def measure_rates(directory: Path, rounds: int = ROUNDS) -> Rates:
    """Raises `BadConfig` when there is no simulator, and `MeasureBroken`."""
    demand_simulator(directory)
    samples: dict[str, list[Sample]] = {side: [] for side in SIDES}
    with _side() as ours, _side(str(directory)) as theirs:
        pair = list(zip(SIDES, (ours, theirs), strict=True))
        for number in range(rounds + 1):  # the first one loads what it needs, and is dropped
            for side, process in pair[:: 1 if number % 2 else -1]:
                sample = _ask(process, number * SEEDS_A_ROUND)
                if number:
                    samples[side].append(sample)
    return Rates(samples)


@contextmanager
def _side(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", rate_child.__name__, *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _ask(process: subprocess.Popen[str], first: int) -> dict[str, Any]:
    assert process.stdin is not None, "the seeds go through a pipe"
    assert process.stdout is not None, "the samples come through a pipe"
    with suppress(BrokenPipeError):  # one that has died says why on its last lines, read below
        process.stdin.write(f"{first} {SEEDS_A_ROUND}\n")
        process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        assert process.stderr is not None, "what went wrong comes through a pipe"
        raise MeasureBroken(process.stderr.read()[-500:])
    sample: dict[str, Any] = json.loads(line)
    return sample
