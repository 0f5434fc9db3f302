"""Builds a C inferlet: Zig's C compiler, then the component tools, byte for byte the same anywhere.

The sources are copied to a directory of our own and compiled by relative names, so that no path of
this machine is in the result. The output appears by one rename; a failed build leaves nothing.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from importlib.resources import as_file, files
from pathlib import Path

from pie_trio.services.guest_build.toolchain import run_tool

WORLD = "exec-clock"
STACK_BYTES = 16 * 1024
COMPILE = [
    "cc",
    "-target",
    "wasm32-freestanding",
    "-mcpu=generic+bulk_memory",
    "-std=c11",
    "-Oz",
    "-flto",
    "-fno-sanitize=all",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-nostdlib",
    "-Wl,--no-entry",
    f"-Wl,-z,stack-size={STACK_BYTES}",
    "-Wl,--strip-all",
    "-Isdk",
]


def build_c(directory: Path, source: str, output: Path) -> None:
    """Compiles `directory/source` (and the headers beside it) to the component `output`."""
    with tempfile.TemporaryDirectory(prefix="pie-build-") as temporary:
        room = Path(temporary)
        copy_sources(directory, room)
        environment = {**os.environ, "ZIG_LOCAL_CACHE_DIR": str(room / "cache")}
        compile_core(room, source, environment)
        wrap_component(room, environment)
        replace_atomically(room / "final.wasm", output)


def copy_sources(directory: Path, room: Path) -> None:
    for path in sorted(directory.glob("*.[ch]")):
        shutil.copyfile(path, room / path.name)
    with as_file(files("inferlets") / "sdk" / "c") as headers:
        shutil.copytree(headers, room / "sdk")
    with as_file(files("pie_trio") / "wasm" / "wit") as contract:
        shutil.copytree(contract, room / "wit")


def compile_core(room: Path, source: str, environment: dict[str, str]) -> None:
    run_tool("zig", *COMPILE, "-o", "core.wasm", source, directory=room, environment=environment)


def wrap_component(room: Path, environment: dict[str, str]) -> None:
    steps = (
        ("component", "embed", "wit", "--world", WORLD, "core.wasm", "-o", "embedded.wasm"),
        ("component", "new", "embedded.wasm", "-o", "component.wasm"),
        ("strip", "--all", "component.wasm", "-o", "final.wasm"),
        ("validate", "--features", "component-model", "final.wasm"),
    )
    for step in steps:
        run_tool("wasm-tools", *step, directory=room, environment=environment)


def replace_atomically(finished: Path, output: Path) -> None:
    """Moves a finished file over `output`, whatever file systems the two are on."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        dir=output.parent, prefix=".building-", delete=False
    ) as beside:
        shutil.copyfile(finished, beside.name)
    Path(beside.name).chmod(0o644)
    Path(beside.name).replace(output)
