"""From a program's record to something that can be started: compiled once, linked once.

Python source runs in the interpreter component, which gets it as its first argument. Compiling
happens in a process of its own and is cached on disk; a launch that is cancelled meanwhile
leaves a compilation that others may still wait for, and nothing half-written.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import attrs
import trio

from pie_trio.config import Limits
from pie_trio.errors import BadProgram
from pie_trio.home import Home
from pie_trio.interpreter import ensure_interpreter
from pie_trio.services.program_store import ProgramRecord
from pie_trio.wasm.compile import Compiler
from pie_trio.wasm.guest import Guest, Program, Sandbox, open_guest
from pie_trio.wasm.host.interfaces import host_interfaces
from pie_trio.wasm.linker import HostInterfaces


class GuestLike(Protocol):
    """One instance of a program."""

    async def run(self) -> None: ...


class ProgramLike(Protocol):
    """A program that can be started, and the arguments that come before the user's."""

    @property
    def identity(self) -> str: ...
    @property
    def arguments(self) -> tuple[str, ...]: ...
    def open_guest(
        self,
        host: Any,
        *,
        memory_bytes: int,
        on_park: Callable[[], None],
        on_wake: Callable[[], None],
        on_slice: Callable[[], None],
    ) -> AbstractAsyncContextManager[GuestLike]: ...


class ProgramSource(Protocol):
    """Where the engine gets its programs from."""

    async def load(self, record: ProgramRecord) -> ProgramLike:
        """Raises `BadProgram`."""
        ...


LoaderMaker = Callable[[Sandbox, Home, Limits, Callable[[str], None]], ProgramSource]


@attrs.frozen(eq=False)
class LoadedProgram:
    """Implements `ProgramLike` by a component."""

    identity: str
    program: Program
    arguments: tuple[str, ...]
    digest: str  # of the program's bytes
    component: str  # of the component that runs: the program's, or the interpreter's

    def open_guest(
        self,
        host: Any,
        *,
        memory_bytes: int,
        on_park: Callable[[], None],
        on_wake: Callable[[], None],
        on_slice: Callable[[], None],
    ) -> AbstractAsyncContextManager[Guest]:
        return open_guest(
            self.program,
            host,
            memory_bytes=memory_bytes,
            on_park=on_park,
            on_wake=on_wake,
            on_slice=on_slice,
        )


@attrs.define(eq=False)
class ProgramLoader:
    """Loads programs into one sandbox."""

    _sandbox: Sandbox
    _home: Home
    _limits: Limits
    _say: Callable[[str], None]
    _interfaces: HostInterfaces = attrs.field(factory=host_interfaces)
    _components: dict[str, Program] = attrs.field(factory=dict, init=False)
    _interpreter: str = attrs.field(default="", init=False)  # the digest of its component
    _compiler: Compiler = attrs.field(init=False)
    _building: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    def __attrs_post_init__(self) -> None:
        self._compiler = Compiler(self._home.compiled, self._limits, self._sandbox.slicing)

    async def load(self, record: ProgramRecord) -> LoadedProgram:
        """Raises `BadProgram`."""
        try:
            return await self._load(record)
        except OSError as error:  # somebody cleans up the cache while we run
            raise BadProgram(f"{record.identity} cannot be read: {error}") from error

    async def _load(self, record: ProgramRecord) -> LoadedProgram:
        if record.language == "python":
            return await self._load_python(record)
        program = self._components.get(record.artifact_hash)
        if program is None:
            program = await self._compile(record.artifact.read_bytes())
            self._components[record.artifact_hash] = program
        digest = record.artifact_hash
        return LoadedProgram(record.identity, program, (), digest, digest)

    async def _load_python(self, record: ProgramRecord) -> LoadedProgram:
        source = record.python_source()
        async with self._building:  # one build, whoever wants it
            program = self._components.get("interpreter")
            if program is None:
                component = await ensure_interpreter(self._home.interpreter, self._say)
                program = await self._compile(component.read_bytes())
                self._components["interpreter"] = program
                self._interpreter = component.stem
        digest, interpreter = record.artifact_hash, self._interpreter
        return LoadedProgram(record.identity, program, (source,), digest, interpreter)

    async def _compile(self, component: bytes) -> Program:
        artifact = await self._compiler.compile(component)
        return self._sandbox.load(artifact, self._interfaces)
