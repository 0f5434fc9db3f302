"""How many lines of the product simulated runs execute, measured in a process of its own.

    python -m pie_trio.testing.line_coverage FIRST LAST

The swarm's seeds, then some of each scenario. What a simulation cannot reach is left out by name,
with the reason; an entry that matches nothing is an error. Needs the `coverage` package.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import attrs

import pie_trio
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
    """The measuring process died, or `coverage` is not installed."""


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

    @property
    def share(self) -> float:
        total = sum(file.all for file in self.files)
        return sum(file.covered for file in self.files) / total if total else 0.0

    def text(self, worst: int = 8) -> str:
        gaps = sorted(self.files, key=lambda file: file.covered - file.all)[:worst]
        lines = [f"line coverage of {len(self.files)} files: {self.share:.1%}"]
        lines += [
            f"  {file.all - file.covered:4d} of {file.all} lines never ran in {file.file}"
            for file in gaps
            if file.covered < file.all
        ]
        return "\n".join(lines)


def measure(first: int, last: int) -> LineCoverage:
    """Raises `MeasureFailed`."""
    with tempfile.TemporaryDirectory(prefix="pie-coverage-") as room:
        data, report = Path(room, "data"), Path(room, "report.json")
        source = str(Path(str(pie_trio.__file__)).parent)
        flags = [f"--data-file={data}", f"--source={source}"]
        _call("run", *flags, "-m", __name__, str(first), str(last))
        _call("json", f"--data-file={data}", "-o", str(report), "-q")
        return _counted(json.loads(report.read_text("utf-8")))


def _call(verb: str, *arguments: str) -> None:
    command = [sys.executable, "-m", "coverage", verb, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MeasureFailed((done.stderr or done.stdout).strip()[-500:])


def _counted(report: dict[str, Any]) -> LineCoverage:
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
    return LineCoverage(tuple(files))


def main() -> None:
    first, last = map(int, sys.argv[1:])
    run_chunk(SwarmTask(tuple(range(first, last)), None, Faults(), None))
    for name in SCENARIOS:
        seeds = tuple(range(first, first + SEEDS_OF_A_SCENARIO))
        run_chunk(SwarmTask(seeds, name, Faults(), None))


if __name__ == "__main__":
    main()
