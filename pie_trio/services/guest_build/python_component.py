"""Builds Python components: the interpreter that runs any program, or a program with its own.

The interpreter is built once, on first use, and cached under a hash of everything that goes into it
(app, kit, contract, tool version), so a change of any of them builds another. The build runs in a
child process and its result appears by one rename.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path

from pie_trio.services.guest_build.c_component import WORLD
from pie_trio.services.guest_build.toolchain import run_tool

TOOL = "componentize-py"


def build_python_component(output: Path, program: Path | None = None) -> None:
    """Writes the interpreter to `output`; with `program` inside, it runs that and nothing else."""
    with tempfile.TemporaryDirectory(prefix="pie-build-") as temporary:
        room = Path(temporary)
        lay_out(room)
        if program is not None:
            shutil.copyfile(program, room / "app" / "program.py")
        app = "app" if program is None else "own_app"
        arguments = ["-d", "wit", "-w", WORLD, "componentize", app, "-p", "app", "-o"]
        environment = {**os.environ, "VIRTUAL_ENV": str(room / "none")}
        run_tool(TOOL, *arguments, "component.wasm", directory=room, environment=environment)
        shutil.copyfile(room / "component.wasm", output)


def lay_out(room: Path) -> None:
    """Copies what the interpreter is made of: `app/` is its import path, `wit/` its contract."""
    with as_file(files("inferlets") / "python") as app:
        shutil.copytree(app, room / "app", ignore=shutil.ignore_patterns("__pycache__"))
    with as_file(files("inferlets") / "sdk" / "inferlet") as kit:
        shutil.copytree(
            kit, room / "app" / "inferlet", ignore=shutil.ignore_patterns("__pycache__")
        )
    with as_file(files("pie_trio") / "wasm" / "wit") as contract:
        shutil.copytree(contract, room / "wit")


def interpreter_identity() -> str:
    """A hash of everything that goes into the interpreter."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(importlib.metadata.version(TOOL).encode())
    with tempfile.TemporaryDirectory(prefix="pie-build-") as temporary:
        room = Path(temporary)
        lay_out(room)
        for path in ingredients(room):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(room)}:{len(content)}:".encode())
            digest.update(content)
    return digest.hexdigest()


def ingredients(room: Path) -> Iterator[Path]:
    return (path for path in sorted(room.rglob("*")) if path.suffix in {".py", ".wit"})
