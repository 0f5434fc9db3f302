"""A served engine from the bench's side: its process, its line, its clients.

Owns the process and a home for it that shares models, interpreter and compiled components with the
user's and forgets the programs that are installed. Closing it ends both; a bench that dies closes
the line, which ends the server too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from benchmarks.paper.server import Specification
from pie_trio.config import Batching, ModelSettings
from pie_trio.home import Home
from pie_trio.services.guest_build.c_component import build_c

GUESTS = Path(__file__).parent / "guests"
STOP_SECONDS = 20.0
SHARED = ("models", "interpreter")


@attrs.frozen(eq=False)
class Served:
    """One question at a time; clients connect to `address`."""

    address: str
    folder: Path
    _process: subprocess.Popen[str]

    def ask(self, what: str, **details: object) -> dict[str, Any]:
        assert self._process.stdin is not None, "it was opened with a pipe"
        self._process.stdin.write(json.dumps({"ask": what, **details}) + "\n")
        self._process.stdin.flush()
        return _next_line(self._process)

    def steps(self) -> list[dict[str, float]]:
        """What every batch took since this was asked last."""
        found: list[dict[str, float]] = self.ask("steps")["steps"]
        return found

    def built(self, source: Path) -> Path:
        """The component of a C program, under a name that no Python program has."""
        component = self.folder / f"{source.stem}-c.wasm"
        if not component.exists():
            build_c(source.parent, source.name, component)
        return component


@contextmanager
def open_served(
    model: ModelSettings,
    batching: Batching | None = None,
    is_cold: bool = False,
) -> Iterator[Served]:
    """Cold: with nothing compiled."""
    with tempfile.TemporaryDirectory(prefix="pie-bench-") as name:
        folder = Path(name)
        for room in SHARED if is_cold else (*SHARED, "compiled"):
            (folder / room).symlink_to(getattr(Home.default(), room))
        specification = Specification(model, name, batching or Batching())
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.paper.server", specification.to_text()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield Served(_next_line(process)["address"], folder, process)
        finally:
            _close(process)


def _next_line(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None, "it was opened with a pipe"
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"the served engine ended with {process.wait()}")
    answer: dict[str, Any] = json.loads(line)
    return answer


def _close(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None, "it was opened with a pipe"
    process.stdin.close()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
