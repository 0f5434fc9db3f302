"""The command line as a user has it: a process with its own streams, and a server beside it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import attrs

COMMAND = (sys.executable, "-m", "pie_trio")
SECONDS = 120


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Ours, without the configuration of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not _is_configuration(name)}
    return {**kept, "XDG_CONFIG_HOME": str(folder), "COLUMNS": "100", "NO_COLOR": "1", **more}


def _is_configuration(name: str) -> bool:
    return name.startswith("PIE_TRIO_") and name != "PIE_TRIO_HOME"


def pie(
    folder: Path, *arguments: str, typed: str = "", more: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs one command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        input=typed,
        env=environment(folder, **(more or {})),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Starts one command; stdin is empty."""
    return subprocess.Popen(
        [*COMMAND, *arguments],
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@attrs.frozen
class Serving:
    """A server with a pretend model, and where it listens."""

    process: subprocess.Popen[str]
    address: str


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[Serving]:
    """Ends with SIGTERM if the test has not ended it."""
    process = start(folder, "serve", "--port", "0", "--log", "off", *arguments)
    try:
        assert process.stdout is not None, "stdout is a pipe"
        line = process.stdout.readline()
        assert " on ws://" in line, f"no line that says where: {line!r}"
        yield Serving(process, line.split()[-1])
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=30)
        finally:
            process.kill()


def slow_config(folder: Path, step_seconds: float = 0.05) -> Path:
    """A pretend model that takes its time, so that a test can come between."""
    path = folder / "slow.toml"
    path.write_text(
        f'[[model]]\nname = "slow"\npretend = true\npretend_step_seconds = {step_seconds}\n',
        "utf-8",
    )
    return path
