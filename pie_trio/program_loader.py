"""From a program's record to something that can be started: compiled once, linked once.

Python source runs in the interpreter component, which gets it as its first argument. Compiling
happens in a process of its own and is cached on disk; a launch that is cancelled meanwhile
leaves a compilation that others may still wait for, and nothing half-written.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from pie_trio.config import Limits
from pie_trio.errors import BadProgram
from pie_trio.home import Home
from pie_trio.interpreter import ensure_interpreter
from pie_trio.services.program_store import ProgramRecord
from pie_trio.wasm.compile import Compiler
from pie_trio.wasm.guest import Program, Sandbox
from pie_trio.wasm.host.interfaces import host_interfaces


@attrs.frozen(eq=False)
class LoadedProgram:
    """A program that can be started, and the arguments that come before the user's."""

    identity: str
    program: Program
    arguments: tuple[str, ...]


@attrs.define(eq=False)
class ProgramLoader:
    """Loads programs into one sandbox."""

    _sandbox: Sandbox
    _home: Home
    _limits: Limits
    _say: Callable[[str], None]
    _components: dict[str, Program] = attrs.field(factory=dict, init=False)
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
        return LoadedProgram(record.identity, program, ())

    async def _load_python(self, record: ProgramRecord) -> LoadedProgram:
        source = record.python_source()
        async with self._building:  # one build, whoever wants it
            program = self._components.get("interpreter")
            if program is None:
                component = await ensure_interpreter(self._home.interpreter, self._say)
                program = await self._compile(component.read_bytes())
                self._components["interpreter"] = program
        return LoadedProgram(record.identity, program, (source,))

    async def _compile(self, component: bytes) -> Program:
        artifact = await self._compiler.compile(component)
        return self._sandbox.load(artifact, host_interfaces())
