"""A whole engine for a test: real guests, the production code, an inline worker that is scripted.

Leaving a world checks its books: every page is free or exported, nothing is pinned, no instance
runs. Compiled components are shared with the user's own cache: they are addressed by content.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from pie_trio.actors.instance import Instance
from pie_trio.config import Batching, Limits, ModelSettings, Settings
from pie_trio.engine import Engine, open_engine
from pie_trio.events import Event
from pie_trio.home import Home
from pie_trio.messages import InstanceEnded, OutputEvent, ResourceKind
from pie_trio.ports import Ports, RandomStreams
from pie_trio.program_loader import LoaderMaker, ProgramLoader
from pie_trio.recording import recording_loader
from pie_trio.served_model import ServedModel
from pie_trio.services.page_pool import Books
from pie_trio.services.worker_link import WorkerLauncher
from pie_trio.testing.inline_worker import InlineLink, WorkerScript, inline_launcher
from pie_trio.wasm.ticker import Slicing

MODEL = "pretend"


@attrs.define(eq=False)
class World:
    """An engine with one pretend model, and what a test wants to see of it."""

    engine: Engine
    script: WorkerScript
    links: list[InlineLink]
    events: list[Event]

    @property
    def model(self) -> ServedModel:
        return self.engine.models[MODEL]

    def books(self, kind: ResourceKind = ResourceKind.KV_PAGE) -> Books:
        books = self.model.books(kind)
        assert books is not None, "the worker is alive"
        return books

    async def launch(self, program: str | Path, *arguments: str) -> Instance:
        store = self.engine.programs
        record = store.from_file(program) if isinstance(program, Path) else store.find(program)
        assert record is not None, f"there is no program {program}"
        return await self.engine.launch(record, arguments, user="tester")

    async def run(self, program: str | Path, *arguments: str) -> InstanceEnded:
        """Launches, reads all output, and returns how it ended."""
        instance = await self.launch(program, *arguments)
        await read_all(instance)
        return await instance.ended.answer()

    def assert_balanced(self) -> None:
        for kind in (ResourceKind.KV_PAGE, ResourceKind.EMBEDDING):
            assert self.books(kind).balanced, f"the books of {kind.name} do not balance"

    def batch_sizes(self) -> list[int]:
        return [len(batch.requests) for batch in self.script.batches if batch.requests]


async def read_all(instance: Instance) -> list[OutputEvent]:
    """Everything that an instance says, its terminal event last."""
    reader = instance.outlet.attach()
    events: list[OutputEvent] = []
    while fresh := await reader.next_events():
        events += fresh
    return events


def shared_home(root: Path) -> Home:
    """A home of its own whose caches are the user's."""
    home, default = Home(root), Home.default()
    root.mkdir(parents=True, exist_ok=True)
    for name in ("compiled", "interpreter", "models"):
        link = root / name
        if not link.exists():
            link.symlink_to(getattr(default, name), target_is_directory=True)
    return home


def settings(
    limits: Limits | None = None,
    *,
    pages: int | None = None,
    batching: Batching | None = None,
    step_seconds: float = 0.0,
) -> Settings:
    model = ModelSettings(MODEL, pretend=True, pages_max=pages, pretend_step_seconds=step_seconds)
    return Settings(
        models=(model,), limits=limits or Limits(), batching=batching or Batching(), seed=1
    )


@asynccontextmanager
async def open_world(
    root: Path,
    *,
    script: WorkerScript | None = None,
    limits: Limits | None = None,
    pages: int | None = 512,
    batching: Batching | None = None,
    launcher: WorkerLauncher | None = None,
    seed: int = 1,
    slicing: Slicing | None = None,
    wall: Callable[[], float] = time.time,
    checks_books: bool = True,
    records: bool = False,
    loader: LoaderMaker | None = None,
    allow: tuple[str, ...] = (),
) -> AsyncIterator[World]:
    script = script or WorkerScript()
    links: list[InlineLink] = []
    events: list[Event] = []
    streams = RandomStreams(seed)
    identities = streams.stream("identities")
    ports = Ports(
        streams,
        wall=wall,
        uuid=lambda: str(uuid.UUID(int=identities.getrandbits(128))),
        emit=events.append,
    )
    wanted = settings(limits, pages=pages, batching=batching, step_seconds=script.step_seconds)
    async with open_engine(
        attrs.evolve(wanted, fetch_allow=allow),
        ports,
        shared_home(root),
        launcher=launcher or inline_launcher(script, links),
        slicing=slicing,
        loader=loader or (recording_loader(ports) if records else ProgramLoader),
    ) as engine:
        world = World(engine, script, links, events)
        yield world
        if not checks_books:  # the worker may be gone, and its books with it
            return
        await settled(world)
        world.assert_balanced()
        assert world.books().owned == 0, "nobody is left to own a page"
        assert world.books().pinned == 0, "no batch is in flight"


async def settled(world: World) -> None:
    """Every instance has ended and no batch is in flight."""
    for instance in world.engine.instances():
        await instance.ended.wait()
    with trio.fail_after(10):
        await world.model.wait_ready()
        while world.books().pinned:  # noqa: ASYNC110
            await trio.sleep(0.001)


def values(ends: Sequence[InstanceEnded]) -> list[str]:
    for end in ends:
        assert end.error is None, end.error
    return [end.value for end in ends]
