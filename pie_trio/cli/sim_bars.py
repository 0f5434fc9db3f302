"""`--json FILE` of the simulation verbs: raw figures, then the bars, by a script of their own.

The script imports nothing of ours, so that a mistake here cannot make its own bar hold. It runs in
a process of its own, writes the bars into the file and prints them; its verdict is the command's.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pie_trio
from pie_trio.cli.exit_codes import Usage
from pie_trio.cli.output import Output


def demand_room(path: Path | None) -> None:
    """Raises `Usage` when there is no such folder: before anything is run, not after it."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise Usage(f"{path} cannot be written: it is a folder, or there is none to put it into")


def write_with_bars(path: Path, raw: Mapping[str, object], script: str, output: Output) -> bool:
    """Whether every bar holds."""
    try:
        path.write_text(json.dumps(raw, indent=1) + "\n", "utf-8")
    except OSError as error:
        raise Usage(f"--json: {path} cannot be written: {error}") from error
    command = [sys.executable, "-I", str(_judge()), script, str(path)]
    judged = subprocess.run(command, capture_output=True, text=True, check=False)
    for line in (judged.stdout + judged.stderr).splitlines():
        output.line(line)
    return judged.returncode == 0


def _judge() -> Path:
    """Beside the package, in a checkout and where it is installed."""
    return Path(str(pie_trio.__file__)).parent.parent / "benchmarks" / "bars" / "judge.py"
