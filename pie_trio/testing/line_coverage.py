"""How many lines of the product simulated runs execute, measured in a process of its own.

    python -m pie_trio.testing.line_coverage FIRST LAST SECONDS

The swarm's seeds and some of each scenario, in turns, so that any beginning is a bit of everything;
what the time does not suffice for is counted. What a simulation cannot reach is left out by name,
with the reason; an entry that matches nothing is an error. Needs the `coverage` package.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from types import MappingProxyType
from typing import Any, Final

import attrs

import pie_trio
from pie_trio.errors import BadConfig
from pie_trio.testing.faults import Faults
from pie_trio.testing.scenarios import SCENARIOS
from pie_trio.testing.swarm import SwarmTask, run_chunk

SEEDS_OF_A_SCENARIO: Final = 12
OFFLINE: Final = "works on what a run has left, in no engine"
WEIGHTS: Final = "reads real weights"
LEFT_OUT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "__main__.py": "the command line",
        "cli/": "the command line",
        "testing/": "the harness itself",
        "services/guest_build/": "builds programs, in no engine",
        "interpreter.py": "builds the interpreter in a process of its own",
        "wasm/compile": "compiles in a process of its own, in real time",
        "services/worker_process.py": "a real process",
        "services/gguf_model.py": WEIGHTS,
        "services/model_": WEIGHTS,
        "services/tensor_file.py": WEIGHTS,
        "settings_file.py": "reads configuration, in no engine",
        "journal.py": OFFLINE,
        "replaying.py": OFFLINE,
        "guest_output.py": OFFLINE,
        "wasm/replay.py": OFFLINE,
        "trace_format.py": OFFLINE,
        "log.py": OFFLINE,
    }
)


class MeasureFailed(Exception):
    """The measuring process died."""


@attrs.frozen
class FileLines:
    """Lines with code of one file, and how many of them were executed."""

    file: str  # below the package
    all: int
    covered: int


@attrs.frozen
class LineCoverage:
    """All files that count."""

    files: tuple[FileLines, ...]
    runs: int = 0
    left_out: int = 0  # runs, for want of time

    @property
    def share(self) -> float:
        total = sum(file.all for file in self.files)
        return sum(file.covered for file in self.files) / total if total else 0.0

    def text(self, worst: int = 8) -> str:
        gaps = sorted(self.files, key=lambda file: file.covered - file.all)[:worst]
        runs = f"{self.runs} runs" + (f", {self.left_out} left out" if self.left_out else "")
        lines = [f"line coverage of {len(self.files)} files: {self.share:.1%} by {runs}"]
        lines += [
            f"  {file.all - file.covered:4d} of {file.all} lines never ran in {file.file}"
            for file in gaps
            if file.covered < file.all
        ]
        return "\n".join(lines)


def demand_tool() -> None:
    """Raises `BadConfig` where nothing can be measured."""
    if find_spec("coverage") is None:
        raise BadConfig("--coverage needs the package coverage: pip install coverage")


def measure(first: int, last: int, seconds: float | None = None) -> LineCoverage:
    """Begins no run after so many seconds. Raises `BadConfig` and `MeasureFailed`."""
    demand_tool()
    limit = math.inf if seconds is None else seconds
    with tempfile.TemporaryDirectory(prefix="pie-coverage-") as room:
        data, report = Path(room, "data"), Path(room, "report.json")
        source = str(Path(str(pie_trio.__file__)).parent)
        flags = [f"--data-file={data}", f"--source={source}"]
        told = _call("run", *flags, "-m", __name__, str(first), str(last), str(limit))
        _call("json", f"--data-file={data}", "-o", str(report), "-q")
        files = _counted(json.loads(report.read_text("utf-8")))
    return LineCoverage(files, **json.loads(told))


def _call(verb: str, *arguments: str) -> str:
    command = [sys.executable, "-m", "coverage", verb, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MeasureFailed((done.stderr or done.stdout).strip()[-500:])
    return done.stdout


def _counted(report: dict[str, Any]) -> tuple[FileLines, ...]:
    package = Path(str(pie_trio.__file__)).parent
    files, used = [], set[str]()
    for name, facts in sorted(report["files"].items()):
        short = Path(name).resolve().relative_to(package).as_posix()
        excluded = [prefix for prefix in LEFT_OUT if short.startswith(prefix)]
        used.update(excluded)
        if not excluded:
            sums = facts["summary"]
            files.append(FileLines(short, sums["num_statements"], sums["covered_lines"]))
    unused = set(LEFT_OUT) - used
    assert not unused, f"these are left out and do not exist: {sorted(unused)}"
    return tuple(files)


def _tasks(first: int, last: int) -> Iterator[SwarmTask]:
    """In rounds: a share of the swarm's seeds, then one seed of each scenario."""
    for turn in range(SEEDS_OF_A_SCENARIO):
        mixed = tuple(range(first + turn, last, SEEDS_OF_A_SCENARIO))
        yield from (SwarmTask((seed,), None, Faults(), None) for seed in mixed)
        yield from (SwarmTask((first + turn,), name, Faults(), None) for name in SCENARIOS)


def main() -> None:
    first, last, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    began, runs, left_out = perf_counter(), 0, 0
    for task in _tasks(first, last):
        if perf_counter() - began > seconds:
            left_out += 1
        else:
            run_chunk(task)
            runs += 1
    sys.stdout.write(json.dumps({"runs": runs, "left_out": left_out}))


if __name__ == "__main__":
    main()
