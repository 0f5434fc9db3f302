"""A small engine for tests of clients and gateway: programs are async functions of Python.

It keeps the promises of the real engine that a client can see: output through a real
`OutputBuffer`, messages through a real `InstanceInbox`, exactly one terminal event per launch.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from pie_trio.config import Limits
from pie_trio.errors import GuestFault, PieError, TooMany
from pie_trio.inbox import InstanceInbox
from pie_trio.mailbox import Reply
from pie_trio.messages import InstanceEnded, InstanceId, OutputEvent
from pie_trio.outlet import OutputBuffer
from pie_trio.services.program_store import ProgramRecord, ProgramStore
from tests.support.programs import component, manifest

Script = Callable[["ScriptedInstance"], Awaitable[str]]


@attrs.define(eq=False)
class ScriptedInstance:
    """One launch of a script."""

    id: InstanceId
    program: str
    user: str
    tenant: str
    input_text: str
    arguments: tuple[str, ...]
    started_at: float
    outlet: OutputBuffer
    inbox: InstanceInbox
    ended: Reply[InstanceEnded] = attrs.field(factory=Reply)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    reason: str = "Signal"

    @property
    def is_finished(self) -> bool:
        return self.ended.is_filled

    def terminate(self, reason: str = "Signal") -> None:
        self.reason = reason
        self.scope.cancel()

    async def say(self, text: str, kind: str = "stdout") -> None:
        await self.outlet.put(OutputEvent(kind, text))

    async def receive(self) -> str:
        return await self.inbox.ticket().answer()


class ScriptedEngine:
    """Implements the gateway's `EngineLike`."""

    def __init__(self, programs: ProgramStore, limits: Limits, nursery: trio.Nursery) -> None:
        self.programs = programs
        self.scripts: dict[str, Script] = {}
        self.forgotten: list[str] = []
        self._limits = limits
        self._nursery = nursery
        self._instances: dict[str, ScriptedInstance] = {}

    def add(self, name: str, script: Script) -> None:
        """Installs a program of this name, version 0.1.0, that runs `script`."""
        self.programs.install(manifest(name), component(len(name)), overwrite=True)
        self.scripts[f"{name}@0.1.0"] = script

    async def launch(
        self,
        program: ProgramRecord,
        arguments: Sequence[str],
        *,
        user: str,
        tenant: str = "local",
        input_text: str = "",
        capture: bool = True,
    ) -> ScriptedInstance:
        await trio.lowlevel.checkpoint()
        running = [instance for instance in self._instances.values() if not instance.is_finished]
        if len(running) >= self._limits.instances_max:
            raise TooMany(f"instances_max: {len(running)} instances are running")
        instance = ScriptedInstance(
            id=InstanceId(str(uuid.uuid4())),
            program=program.identity,
            user=user,
            tenant=tenant,
            input_text=input_text,
            arguments=tuple(arguments),
            started_at=trio.current_time(),
            outlet=OutputBuffer(self._limits, capture=capture),
            inbox=InstanceInbox(self._limits),
        )
        self._instances[instance.id] = instance
        self._nursery.start_soon(self._run, instance, self.scripts.get(program.identity, _silent))
        return instance

    def find(self, instance_id: str, tenant: str = "local") -> ScriptedInstance | None:
        return self._instances.get(instance_id)

    def instances(self, tenant: str = "local") -> list[ScriptedInstance]:
        return list(self._instances.values())

    def forget(self, instance: ScriptedInstance) -> None:
        assert instance.is_finished, "only what has ended is forgotten"
        self.forgotten.append(instance.id)
        del self._instances[instance.id]

    def model_status(self) -> dict[str, int | float | str | list[int]]:
        return {"pretend.kv_pages_used": 0, "pretend.batch_size_hist": [1, 2]}

    async def _run(self, instance: ScriptedInstance, script: Script) -> None:
        value, error = "", instance.reason
        with instance.scope:
            try:
                value, error = await script(instance), ""
            except PieError as fault:
                error = str(fault)
        error = instance.reason if instance.scope.cancelled_caught else error
        terminal = OutputEvent("error", error) if error else OutputEvent("return", value)
        instance.outlet.close(terminal)
        instance.ended.fill(
            InstanceEnded(instance.id, value, error or None, "GuestFault" if error else None)
        )


async def _silent(instance: ScriptedInstance) -> str:
    return ""


async def echo(instance: ScriptedInstance) -> str:
    """Returns what it was told; the arguments come back first."""
    await instance.say(" ".join(instance.arguments))
    return await instance.receive()


async def sleeper(instance: ScriptedInstance) -> str:
    await trio.sleep_forever()
    return ""


async def failing(instance: ScriptedInstance) -> str:
    raise GuestFault("the guest trapped: unreachable")


async def talker(instance: ScriptedInstance) -> str:
    """All kinds of events once, each distinguishable."""
    await instance.say("out")
    await instance.say("err", "stderr")
    await instance.say("told", "message")
    return '{"answer": 42}'


async def file_echo(instance: ScriptedInstance) -> str:
    """Sends a blob at once, then sends back the blob that it gets."""
    await instance.outlet.put(OutputEvent("file", "greeting.bin", b"hello"))
    blob = await instance.inbox.blob_ticket().answer()
    await instance.outlet.put(OutputEvent("file", "", blob))
    return str(len(blob))


@asynccontextmanager
async def open_scripted_engine(
    root: Path, limits: Limits | None = None
) -> AsyncIterator[ScriptedEngine]:
    """With the scripts of this module installed under their names."""
    limits = limits or Limits()
    store = ProgramStore(root / "programs", limits, shipped=root / "shipped")
    async with trio.open_nursery() as nursery:
        engine = ScriptedEngine(store, limits, nursery)
        for script in (echo, sleeper, failing, talker, file_echo):
            engine.add(script.__name__.replace("_", "-"), script)
        yield engine
        nursery.cancel_scope.cancel()
