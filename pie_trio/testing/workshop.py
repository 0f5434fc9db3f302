"""What all simulated runs of one process share because no run can change it, or is made to undo it.

A private home in memory with the scripted programs installed, compiled components, one wasmtime
engine that counts instructions, and how each program ends when it is alone. A run that leaves a
guest behind in the sandbox costs the sandbox; a program that a run has installed is taken out.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import attrs
import trio

from pie_trio.config import Limits
from pie_trio.home import Home
from pie_trio.program_loader import ProgramLoader
from pie_trio.services.program_store import ProgramRecord, ProgramStore
from pie_trio.testing.guests import NAME_PREFIX
from pie_trio.testing.scripts import SCRIPTS
from pie_trio.wasm.fiber import Turns
from pie_trio.wasm.guest import Sandbox
from pie_trio.wasm.host.interfaces import host_interfaces
from pie_trio.wasm.native import open_native
from pie_trio.wasm.recording import recorded
from pie_trio.wasm.settings import new_engine
from pie_trio.wasm.ticker import FuelSlices

MEMORY_FOLDER = Path("/dev/shm")
SHARED_ROOMS = ("compiled", "interpreter", "models", "native")
MANIFEST = """
[package]
name = "{name}"
version = "1.0.0"
description = "A script of the simulator"

[runtime]
language = "python"
artifact = "main.py"
"""


@attrs.define(eq=False)
class Workshop:
    """See `workshop`."""

    home: Home
    slicing: FuelSlices
    references: dict[tuple[str, tuple[str, ...]], str | None] = attrs.field(factory=dict)
    runs: int = 0
    _sandbox: Sandbox | None = None
    _prepared: set[str] = attrs.field(factory=set)
    _installed: frozenset[str] = frozenset()
    _records: dict[str, ProgramRecord] = attrs.field(factory=dict)

    @property
    def sandbox(self) -> Sandbox:
        """Clean: no guest is in it."""
        if self._sandbox is None or self._sandbox.borders:
            limits = Limits()
            engine = new_engine(self.slicing, limits.async_stack_bytes)
            native = open_native(self.home.native, lambda _line: None)
            self._sandbox = Sandbox(engine, limits, self.slicing, Turns(None), native)
        self._sandbox.turns.queue = trio.StrictFIFOLock()
        return self._sandbox

    def prepare(self, programs: Iterable[str]) -> None:
        """Compiles and loads components now, in real time, before a clock is virtual."""
        wanted = [program for program in programs if program not in self._prepared]
        if wanted:
            trio.run(self._load, wanted)
            self._prepared.update(wanted)

    async def _load(self, programs: list[str]) -> None:
        limits = Limits()
        interfaces = recorded(host_interfaces())  # as the simulator's own loader links them
        loader = ProgramLoader(self.sandbox, self.home, limits, lambda _line: None, interfaces)
        store = ProgramStore(self.home.programs, limits)
        for program in programs:
            record = store.from_file(Path(program)) if "/" in program else store.find(program)
            assert record is not None, f"there is no program {program}"
            await loader.load(record)

    def install(self, path: Path) -> str:
        """A program of the user's, for all runs from now on; its name. Raises `BadProgram`."""
        store = ProgramStore(self.home.programs, Limits())
        record = store.from_file(path)
        store.install(record.manifest, record.artifact.read_bytes(), overwrite=True)
        self._installed = self._files()
        return record.identity

    def install_scripts(self) -> None:
        store = ProgramStore(self.home.programs, Limits())
        for name in SCRIPTS:
            manifest = MANIFEST.format(name=NAME_PREFIX + name)
            store.install(manifest, f"# {name}\n".encode(), overwrite=True)
        self._installed = self._files()

    def script(self, program: str) -> ProgramRecord:
        """Of an installed script, which no run can change."""
        if program not in self._records:
            record = ProgramStore(self.home.programs, Limits()).find(program)
            assert record is not None, f"there is no program {program}"
            self._records[program] = record
        return self._records[program]

    def tidy(self) -> None:
        """Takes out what a run has installed."""
        for path in self._files() - self._installed:
            Path(path).unlink()

    def _files(self) -> frozenset[str]:
        """Cheap, because it is asked after every run."""
        folders = os.scandir(self.home.programs)
        return frozenset(entry.path for folder in folders for entry in os.scandir(folder))


@functools.cache
def workshop() -> Workshop:
    """The one of this process."""
    folder = MEMORY_FOLDER if MEMORY_FOLDER.is_dir() else None
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pie-sim-", dir=folder)))
        default = Home.default()
        for room in SHARED_ROOMS:
            (root / room).symlink_to(getattr(default, room), target_is_directory=True)
        shop = Workshop(Home(root), FuelSlices())
        shop.install_scripts()
        _forget_at_exit(stack.pop_all())
    return shop


def _forget_at_exit(stack: ExitStack) -> None:
    import atexit

    atexit.register(stack.close)
