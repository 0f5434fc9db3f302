"""Compilation in a process of its own, and the cache of what came out."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import trio
from wasmtime import wat2wasm

from pie_trio.config import Limits
from pie_trio.errors import BadProgram
from pie_trio.wasm.compile import Compiler, compile_component
from pie_trio.wasm.guest import open_guest, open_sandbox
from pie_trio.wasm.linker import HostInterfaces
from pie_trio.wasm.ticker import FuelSlices
from tests.guests import HERE

THIN = bytes(wat2wasm((HERE / "thin.wat").read_text()))
IMPORTING = """(component
  (import "inferlet:core/kvs" (instance
    {types}
    (export "store-delete" (func (param "key" {type})))))
  (core module $m (memory (export "memory") 1) (func (export "run") (result i32) (i32.const 16)))
  (core instance $i (instantiate $m))
  (alias core export $i "memory" (core memory $memory))
  (func $run (result (result (error string)))
    (canon lift (core func $i "run") (memory $memory)))
  (instance $interface (export "run" (func $run)))
  (export "inferlet:core/run" (instance $interface)))"""


def _tower(levels: int, level: str) -> bytes:
    """A program whose import takes a type of types of types."""
    types = "(type $t0 (list u8))" + "".join(
        f"(type $t{n} {level})".replace("$below", f"$t{n - 1}") for n in range(1, levels)
    )
    return bytes(wat2wasm(IMPORTING.format(types=types, type=f"$t{levels - 1}")))


RUN_WITH = """(component
  (core module $m (func (export "run") (param i32) (result i32) (local.get 0)))
  (core instance $i (instantiate $m))
  (func $run (param "n" u32) (result u32) (canon lift (core func $i "run")))
  (instance $interface (export "{name}" (func $run)))
  (export "inferlet:core/run" (instance $interface)))"""


async def later(_host: object, number: int) -> int:
    await trio.lowlevel.checkpoint()
    return number * 10


def _leb128(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def _files(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir()) if cache.exists() else []


async def test_a_compiled_component_runs(tmp_path: Path) -> None:
    artifact = await compile_component(THIN, tmp_path / "cache", limits=Limits())
    interfaces: HostInterfaces = {
        "test:host/calls": {"add": lambda _host, a, b: a + b, "later": later}
    }

    async with open_sandbox(Limits()) as sandbox:
        program = sandbox.load(artifact, interfaces)
        async with open_guest(
            program, None, memory_bytes=2**20, on_park=lambda: None, on_wake=lambda: None
        ) as guest:
            await guest.run()


async def test_the_cache_is_ours_alone(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o777)

    artifact = await compile_component(THIN, cache, limits=Limits())

    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert stat.S_IMODE(artifact.stat().st_mode) == 0o600


async def test_the_second_compilation_is_the_file_of_the_first(tmp_path: Path) -> None:
    first = await compile_component(THIN, tmp_path, limits=Limits())
    written = first.stat().st_mtime_ns

    second = await compile_component(THIN, tmp_path, limits=Limits())

    assert (second, second.stat().st_mtime_ns) == (first, written)


async def test_other_settings_make_another_file(tmp_path: Path) -> None:
    one = await compile_component(THIN, tmp_path, limits=Limits())
    other = await compile_component(THIN, tmp_path, limits=Limits(), slicing=FuelSlices())

    assert one != other


async def test_callers_at_the_same_time_share_one_compilation(tmp_path: Path) -> None:
    compiler = Compiler(tmp_path, Limits())
    children: set[int] = set()
    found: list[Path] = []

    async def compile_it() -> None:
        found.append(await compiler.compile(THIN))

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(compile_it)
        while len(found) < 8:
            children |= {child.pid for child in psutil.Process().children()}
            await trio.lowlevel.checkpoint()

    assert len(children) == 1
    assert len(set(found)) == 1


async def test_who_waits_for_a_cancelled_compilation_starts_it_anew(tmp_path: Path) -> None:
    compiler = Compiler(tmp_path, Limits())
    impatient = trio.CancelScope()

    async def give_up() -> None:
        with impatient:
            await compiler.compile(THIN)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(give_up)
        while not psutil.Process().children():
            await trio.lowlevel.checkpoint()
        nursery.start_soon(compiler.compile, THIN)
        impatient.cancel()

    assert impatient.cancelled_caught
    assert len(_files(tmp_path)) == 1


@pytest.mark.parametrize(
    ("wasm", "reason"),
    [
        (b"", "not WebAssembly"),
        (b"#!/bin/sh", "not WebAssembly"),
        (bytes(wat2wasm("(module)")), "core module"),
        (THIN[:100], "unexpected end|out of bounds|extends past"),
        (THIN[:40] + b"\xff" * 40 + THIN[80:], "."),
        (bytes(wat2wasm("(component)")), "does not export inferlet:core/run"),
        (bytes(wat2wasm(RUN_WITH.format(name="start"))), "has no function `run`"),
        (bytes(wat2wasm(RUN_WITH.format(name="run"))), "must be `func\\(\\) -> result"),
        (bytes(wat2wasm(IMPORTING.format(types="", type="u8"))), "it is `func\\(string\\)`"),
        (_tower(5000, "(list $below)"), "nesting is too deep"),
        (_tower(14, "(tuple $below $below)"), "it is `func"),
        (_tower(60, "(tuple $below $below)"), "type size exceeds"),
    ],
)
async def test_a_bad_program_is_refused_with_the_reason_and_leaves_nothing(
    tmp_path: Path, wasm: bytes, reason: str
) -> None:
    with pytest.raises(BadProgram, match=reason):
        await compile_component(wasm, tmp_path, limits=Limits())

    assert _files(tmp_path) == []


async def test_a_compilation_beyond_its_time_is_refused_and_dead(tmp_path: Path) -> None:
    with pytest.raises(BadProgram, match="more than"):
        await compile_component(THIN, tmp_path, limits=Limits(compile_seconds=0.01))

    assert _files(tmp_path) == []
    assert psutil.Process().children() == []


async def test_a_compilation_beyond_its_memory_is_refused(tmp_path: Path) -> None:
    """A large custom section is the cheapest way to need memory."""
    size = 80 * 1024 * 1024
    section = b"\0" + _leb128(size + 2) + b"\1x" + bytes(size)
    limits = Limits(compile_memory_bytes=64 * 1024 * 1024)

    with pytest.raises(BadProgram, match="memory"):
        await compile_component(THIN + section, tmp_path, limits=limits)

    assert _files(tmp_path) == []


async def test_a_cancelled_compilation_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    with trio.move_on_after(0.05) as scope:
        await compile_component(THIN, tmp_path, limits=Limits())

    assert scope.cancelled_caught
    assert psutil.Process().children() == []
    assert _files(tmp_path) == []


PARENT_OF_A_COMPILATION = """
import os, subprocess, sys
bounds = [str(2**32), "60", str(os.getpid())]
command = [sys.executable, "-m", "pie_trio.wasm.compile_child", sys.argv[1], "epoch", *bounds]
print(subprocess.Popen(command).pid, flush=True)
sys.stdin.read()
"""


def test_a_compilation_ends_with_the_killed_process_that_wanted_it(tmp_path: Path) -> None:
    """It waits for a program that this test never sends."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT_OF_A_COMPILATION, str(tmp_path / "artifact")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None, "stdout is a pipe"
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        parent.wait()
        _, alive = psutil.wait_procs([child], timeout=10)
    assert not alive


async def test_a_damaged_artifact_is_refused_and_removed(tmp_path: Path) -> None:
    artifact = await compile_component(THIN, tmp_path, limits=Limits())
    os.truncate(artifact, 1000)

    async with open_sandbox(Limits()) as sandbox:
        with pytest.raises(BadProgram, match="compile it again"):
            sandbox.load(artifact, {})

    assert _files(tmp_path) == []
