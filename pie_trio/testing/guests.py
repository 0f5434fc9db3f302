"""Guests that are async functions: the same host objects as a component gets, without its code.

A script stands in for a program in the engine's own place for it, so everything around it is the
product: its instance, leases, queues, outlet, its parking and waking. The program's name is
`sim-` and the script's. Where nothing of the world must show in what it returns, a script returns
the same in every run in which it lives; that is what the simulator compares.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import trio

from gpu_worker.wire import OutputRow, SamplerKind
from pie_trio.config import Limits
from pie_trio.errors import GuestFault, OutOfPages
from pie_trio.handles import QueueHandle
from pie_trio.home import Home
from pie_trio.mailbox import Reply
from pie_trio.messages import Owner, PageHandle, PassDraft, PassResult, ResourceKind
from pie_trio.ports import Ports
from pie_trio.program_loader import GuestLike, LoaderMaker, ProgramLike, ProgramSource
from pie_trio.recording import recording_loader
from pie_trio.services.program_store import ProgramRecord
from pie_trio.wasm.fiber import follow
from pie_trio.wasm.guest import Sandbox
from pie_trio.wasm.host.state import InstanceHost

KV = ResourceKind.KV_PAGE
NAME_PREFIX = "sim-"
PATIENCE_TRIES = 40
GREEDY = 0.0


@attrs.define(eq=False)
class ScriptHost:
    """What a script may do; each call that a component would make passes `on_call` first."""

    host: InstanceHost
    arguments: tuple[str, ...]
    on_call: Callable[[Owner], None]
    on_slice: Callable[[], None]
    queue: QueueHandle = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.queue = self.new_queue()

    def number(self, index: int, otherwise: int) -> int:
        """An argument that is a number."""
        return int(self.arguments[index]) if index < len(self.arguments) else otherwise

    def text(self, index: int, otherwise: str) -> str:
        return self.arguments[index] if index < len(self.arguments) else otherwise

    def new_queue(self, model: str = "") -> QueueHandle:
        name = model or next(iter(self.host.models))
        return self.host.models[name].create_queue()

    @property
    def page_tokens(self) -> int:
        return self.queue.model.facts.page_size

    def pages_for(self, tokens: int) -> int:
        return -(-tokens // self.page_tokens)

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """A host function by its Python name, as the linker calls it."""
        self.on_call(self.host.owner)
        result = function(self.host, *arguments)
        return await result if isinstance(result, Awaitable) else result

    async def allocate(
        self, count: int, queue: QueueHandle | None = None, kind: ResourceKind = KV
    ) -> list[int]:
        """Asks again for a while when there is no room."""
        for attempt in range(PATIENCE_TRIES):
            self.on_call(self.host.owner)
            try:
                return await (queue or self.queue).allocate(kind, count)
            except OutOfPages:
                await trio.sleep(0.05 * (attempt + 1))
        self.on_call(self.host.owner)
        return await (queue or self.queue).allocate(kind, count)

    async def free(self, pages: Sequence[int], queue: QueueHandle | None = None) -> None:
        self.on_call(self.host.owner)
        await (queue or self.queue).deallocate(KV, pages)

    async def submit(
        self,
        pages: Sequence[int],
        tokens: Sequence[int],
        total: int,
        queue: QueueHandle | None = None,
        mask: tuple[tuple[int, ...], ...] | None = None,
        embed_outputs: tuple[tuple[int, int], ...] = (),
    ) -> Reply[PassResult]:
        """A pass whose last row ends a context of `total` slots; a token for that row."""
        self.on_call(self.host.owner)
        size = self.page_tokens
        return await (queue or self.queue).submit(
            PassDraft(
                tokens=tuple(tokens),
                positions=tuple(range(total - len(tokens), total)),
                pages=tuple(PageHandle(page) for page in pages[: self.pages_for(total)]),
                last_page_length=(total - 1) % size + 1,
                mask=mask,
                outputs=(OutputRow(len(tokens) - 1, SamplerKind.MULTINOMIAL, GREEDY),),
                embed_outputs=embed_outputs,
            )
        )

    async def token(
        self,
        pages: Sequence[int],
        tokens: Sequence[int],
        total: int,
        queue: QueueHandle | None = None,
    ) -> int:
        reply = await self.submit(pages, tokens, total, queue)
        (token,) = (await reply.answer()).tokens
        return token

    async def generate(
        self,
        pages: Sequence[int],
        prompt: Sequence[int],
        count: int,
        before: int = 0,
        queue: QueueHandle | None = None,
    ) -> list[int]:
        """Fills in a prompt behind `before` slots, then so many tokens one by one."""
        total = before + len(prompt)
        found = [await self.token(pages, prompt, total, queue)]
        while len(found) < count:
            total += 1
            found.append(await self.token(pages, found[-1:], total, queue))
        return found


Script = Callable[[ScriptHost], Awaitable[str]]


@attrs.frozen(eq=False)
class ScriptedGuest:
    """Implements `GuestLike`."""

    script: Script
    host: ScriptHost
    on_park: Callable[[], None]
    on_wake: Callable[[], None]

    async def run(self) -> None:
        self.host.host.return_value = await follow(self._run(), self.on_park, self.on_wake)

    async def _run(self) -> str:
        await trio.lowlevel.checkpoint()
        return await self.script(self.host)


@attrs.frozen(eq=False)
class ScriptedProgram:
    """Implements `ProgramLike`."""

    identity: str
    digest: str
    component: str
    script: Script
    on_call: Callable[[Owner], None]
    arguments: tuple[str, ...] = ()

    @asynccontextmanager
    async def open_guest(
        self,
        host: InstanceHost,
        *,
        memory_bytes: int,
        on_park: Callable[[], None],
        on_wake: Callable[[], None],
        on_slice: Callable[[], None],
    ) -> AsyncIterator[GuestLike]:
        mine = ScriptHost(host, host.arguments, self.on_call, on_slice)
        yield ScriptedGuest(self.script, mine, on_park, on_wake)


@attrs.define(eq=False)
class ScriptLoader:
    """Implements `ProgramSource`: scripts by their names, all other programs as in production."""

    scripts: Mapping[str, Script]
    on_call: Callable[[Owner], None]
    open_programs: Callable[[], ProgramSource]  # when the first one is wanted: most runs want none
    read_fails: Callable[[], bool]
    _programs: ProgramSource | None = attrs.field(default=None, init=False)

    @property
    def programs(self) -> ProgramSource:
        if self._programs is None:
            self._programs = self.open_programs()
        return self._programs

    async def load(self, record: ProgramRecord) -> ProgramLike:
        if self.read_fails():  # its file is gone; production must put that into words
            gone = record.artifact.with_name("gone")
            return await self.programs.load(attrs.evolve(record, artifact=gone))
        name = record.name.removeprefix(NAME_PREFIX)
        if name == record.name or name not in self.scripts:
            return await self.programs.load(record)
        await trio.lowlevel.checkpoint()
        digest = record.artifact_hash
        return ScriptedProgram(record.identity, digest, digest, self.scripts[name], self.on_call)


def script_loader(
    scripts: Mapping[str, Script],
    on_call: Callable[[Owner], None],
    ports: Ports,
    *,
    records: bool = False,
    read_fails: Callable[[], bool] = lambda: False,
) -> LoaderMaker:
    """What `open_engine` wants. `records`: the host calls of components become events."""
    components = recording_loader(ports, on_call, is_quiet=not records)

    def make(
        sandbox: Sandbox, home: Home, limits: Limits, say: Callable[[str], None]
    ) -> ScriptLoader:
        programs = partial(components, sandbox, home, limits, say)
        return ScriptLoader(scripts, on_call, programs, read_fails)

    return make


def refuse(text: str) -> GuestFault:
    """What a guest that traps looks like."""
    return GuestFault(f"the script says: {text}")
