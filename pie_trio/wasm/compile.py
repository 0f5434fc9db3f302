"""Compiled components, kept on disk under the hash of their source.

Compilation takes seconds to a minute and happens in a process of its own with limits on memory and
time. The cache holds machine code that we will run, so its directory is ours alone, and a file
appears in it whole or not at all. Cancelled or refused: the process is dead and nothing is left.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import attrs
import trio
from blake3 import blake3

import pie_trio
from pie_trio.config import Limits
from pie_trio.errors import BadProgram
from pie_trio.wasm import compile_child
from pie_trio.wasm.settings import fingerprint
from pie_trio.wasm.ticker import EpochSlices, FuelSlices, Slicing

MAGIC: Final = b"\0asm"
CORE_MODULE: Final = b"\1\0\0\0"
REASON_CHARACTERS: Final = 2000


@attrs.define(eq=False)
class Compiler:
    """The cache of one engine. Callers that want the same component wait for one compilation."""

    cache: Path
    limits: Limits
    slicing: Slicing = attrs.field(factory=EpochSlices)
    # Name of the artifact -> whoever compiles it, and how many want it.
    _in_progress: dict[str, tuple[trio.Lock, int]] = attrs.field(factory=dict)

    async def compile(self, wasm: bytes) -> Path:
        """The compiled file. Cancelled: the next one who waits for it starts anew."""
        _check_kind(wasm)
        name = f"{blake3(wasm).hexdigest()}-{fingerprint(self.slicing)}.cwasm"
        artifact = self.cache / name
        _own_directory(self.cache)
        async with self._alone_with(name):
            if not artifact.exists():
                with _unfinished(self.cache) as output:
                    await self._run_child(wasm, output)
                    output.replace(artifact)
        return artifact

    @asynccontextmanager
    async def _alone_with(self, name: str) -> AsyncIterator[None]:
        lock, wanted = self._in_progress.get(name, (trio.Lock(), 0))
        self._in_progress[name] = (lock, wanted + 1)
        try:
            async with lock:
                yield
        finally:
            lock, wanted = self._in_progress.pop(name)
            if wanted > 1:
                self._in_progress[name] = (lock, wanted - 1)

    async def _run_child(self, wasm: bytes, output: Path) -> None:
        limits = self.limits
        kind = "fuel" if isinstance(self.slicing, FuelSlices) else "epoch"
        bounds = [str(limits.compile_memory_bytes), str(int(limits.compile_seconds))]
        command = [sys.executable, "-m", compile_child.__name__, str(output), kind, *bounds]
        with trio.move_on_after(limits.compile_seconds) as timer:
            result = await trio.run_process(
                [*command, str(os.getpid())],
                stdin=wasm,
                capture_stderr=True,
                check=False,
                env=_environment(),
                deliver_cancel=_kill,
            )
        if timer.cancelled_caught:
            raise BadProgram(f"compiling it takes more than {limits.compile_seconds:g} seconds")
        if result.returncode != 0:
            raise BadProgram(_reason(result, limits))


async def compile_component(
    wasm: bytes, cache: Path, *, limits: Limits, slicing: Slicing | None = None
) -> Path:
    """Compile one component, if it is not in the cache; for callers that need just one."""
    slicing = EpochSlices() if slicing is None else slicing
    return await Compiler(cache, limits, slicing).compile(wasm)


def _check_kind(wasm: bytes) -> None:
    if wasm[:4] != MAGIC:
        raise BadProgram("this is not WebAssembly: the first four bytes are not \\0asm")
    if wasm[4:8] == CORE_MODULE:
        raise BadProgram(
            "this is a core module, not a component; `wasm-tools component new` makes one"
        )


def _own_directory(directory: Path) -> None:
    """Whoever can write here can run machine code as us."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        directory.chmod(0o700)


@contextmanager
def _unfinished(directory: Path) -> Iterator[Path]:
    """A file that is gone afterwards, unless it was renamed."""
    descriptor, name = tempfile.mkstemp(prefix="unfinished-", dir=directory)
    os.close(descriptor)
    path = Path(name)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _environment() -> dict[str, str]:
    """The child finds this package wherever we found it."""
    source = str(Path(pie_trio.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": source}


async def _kill(process: trio.Process) -> None:
    process.kill()


def _reason(result: subprocess.CompletedProcess[bytes], limits: Limits) -> str:
    text = result.stderr.decode("utf-8", "replace").strip()
    if result.returncode == compile_child.REFUSED and "Traceback" not in text:
        return text[:REASON_CHARACTERS]
    if result.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"compiling it takes more than {limits.compile_seconds:g} seconds or too much memory"
    last_line = text.splitlines()[-1] if text else f"status {result.returncode}"
    most = limits.compile_memory_bytes
    return f"the compiler died (it may use {most} bytes of memory): {last_line[:REASON_CHARACTERS]}"
