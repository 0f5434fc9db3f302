"""An engine whose programs are async functions of a test: parents, and the children of these."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from pie_trio.config import Limits
from pie_trio.ports import Ports, RandomStreams
from pie_trio.services.program_store import ProgramStore
from pie_trio.testing.guests import NAME_PREFIX, Script, ScriptHost, script_loader
from pie_trio.wasm.codec import Err
from pie_trio.wasm.host.child import CHILD, Process
from pie_trio.wasm.wasi.poll import POLL
from tests.support.programs import manifest
from tests.world import World, open_world, shared_home


@asynccontextmanager
async def open_family(
    root: Path, scripts: Mapping[str, Script], limits: Limits | None = None, **options: Any
) -> AsyncIterator[World]:
    """Each script is the program `sim-` and its name."""
    limits = limits or Limits()
    store = ProgramStore(shared_home(root).programs, limits)
    for name in scripts:
        store.install(
            manifest(NAME_PREFIX + name, language="python"), f"# {name}\n".encode(), overwrite=True
        )
    loader = script_loader(scripts, lambda _owner: None, Ports(RandomStreams(1)))
    async with open_world(root, limits=limits, loader=loader, **options) as world:
        yield world


async def start(
    guest: ScriptHost, program: str, *arguments: str, deadline_ms: int | None = None
) -> Any:
    """A process, or an `Err`."""
    return await guest.call(CHILD["start"], program, arguments, deadline_ms)


async def method(guest: ScriptHost, name: str, process: Process, *arguments: Any) -> Any:
    return await guest.call(CHILD[f"[method]process.{name}"], process, *arguments)


async def outcome(guest: ScriptHost, process: Process) -> str | Err:
    """As a component waits for it; what the child says meanwhile is dropped."""
    pollable = await method(guest, "pollable", process)
    while (found := await method(guest, "outcome", process)) is None:
        await guest.call(POLL["[method]pollable.block"], pollable)
        await method(guest, "receive", process)
    assert isinstance(found, str | Err)
    return found


async def run_child(guest: ScriptHost, program: str, *arguments: str) -> str | Err:
    process = await start(guest, program, *arguments)
    if isinstance(process, Err):
        return process
    with closing(process):
        return await outcome(guest, process)
