"""Finds and runs the tools that guests are built with, in the environment that runs us.

They are ordinary Python packages with a binary inside (the `build` extra); a missing one is an
error that says how to get it. Nothing outside the environment is ever searched or run.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from pie_trio.errors import BadProgram


class MissingToolchain(BadProgram):
    """A build tool is not installed; the text says how to install it."""


class BuildFailed(BadProgram):
    """A build tool refused the program; the text is what it said."""


def tool_command(tool: str) -> list[str]:
    """The words that start `tool`; raises `MissingToolchain` if it is not installed."""
    if tool == "zig" and importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang"]
    script = Path(sys.executable).parent / tool
    if tool != "zig" and script.is_file():
        return [str(script)]
    raise MissingToolchain(f"{tool} is not installed: pip install 'pie-trio[build]'")


def run_tool(tool: str, *arguments: str, directory: Path, environment: Mapping[str, str]) -> None:
    """Runs one step in `directory`; raises `BuildFailed` with the tool's own words."""
    command = [*tool_command(tool), *arguments]
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BuildFailed(f"{tool} failed:\n{(done.stderr or done.stdout).strip()}")
