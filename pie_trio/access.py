"""One instance's way to the models: the `ModelHandle` and `QueueHandle` that host functions use.

Every pass is resolved, made writable and pinned here, in the instance's own task. A lease is
taken when a model is first really used, and given back when the instance's leases close. A
refused call has changed nothing; a cancelled one leaves only what the lease will give back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import attrs
import trio

from pie_trio.actors.command_queue import CommandQueue
from pie_trio.actors.resource_manager import Lease
from pie_trio.config import Limits
from pie_trio.errors import GuestFault, PieError, WorkerLost
from pie_trio.handles import ModelFacts, TokenizerLike
from pie_trio.mailbox import Reply
from pie_trio.messages import (
    ForwardPass,
    Owner,
    PageHandle,
    PageId,
    PassDraft,
    PassResult,
    Priority,
    ResourceKind,
    RunCommand,
)
from pie_trio.ports import Ports
from pie_trio.served_model import Residence, Resident, ServedModel
from pie_trio.services.page_pool import PagePool, Tenancy
from pie_trio.services.pass_chunks import pass_seed


@attrs.define(eq=False)
class InstanceScope:
    """What lives and dies with one instance: its leases, its queues' loops, its ordinals."""

    resident: Resident
    leases: AsyncExitStack
    queues: trio.Nursery
    limits: Limits
    ports: Ports
    residences: dict[str, Residence] = attrs.field(factory=dict)
    queues_opened: int = 0

    @property
    def owner(self) -> Owner:
        return self.resident.owner

    async def residence(self, model: ServedModel) -> Residence:
        found = self.residences.get(model.name)
        if found is None:
            found = await self.leases.enter_async_context(model.reside(self.resident))
            self.residences[model.name] = found
        return found

    def parked(self) -> None:
        """The guest waits: for batches that gather, and for those who wait for its pages."""
        for residence in self.residences.values():
            residence.loop.parked(self.owner)
            residence.manager.reconsider()

    def woke(self) -> None:
        for residence in self.residences.values():
            residence.loop.woke(self.owner)

    def used_slice(self) -> None:
        """The guest computes: batches do not wait for it for long."""
        for residence in self.residences.values():
            residence.loop.used_slice(self.owner)


class InstanceModel:
    """Implements `handles.ModelHandle`."""

    def __init__(self, model: ServedModel, scope: InstanceScope) -> None:
        self.model = model
        self.scope = scope

    @property
    def facts(self) -> ModelFacts:
        return self.model.facts

    @property
    def tokenizer(self) -> TokenizerLike:
        return self.model.tokenizer

    def render_chat(self, request_json: str) -> str:
        try:
            request = json.loads(request_json)
            messages = request["messages"]
            add_prompt = bool(request.get("add_generation_prompt", True))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise GuestFault(
                f'render-chat wants {{"messages": [...], "add_generation_prompt": true}}: {error!r}'
            ) from error
        return self.model.template.render(messages, add_prompt)

    def create_queue(self) -> InstanceQueue:
        limit = self.scope.limits.queues_per_instance
        if self.scope.queues_opened >= limit:
            raise GuestFault(f"queues_per_instance: {limit} queues were created already")
        number = self.scope.queues_opened
        self.scope.queues_opened += 1
        return InstanceQueue(self, number)


class InstanceQueue:
    """Implements `handles.QueueHandle`."""

    def __init__(self, model: InstanceModel, number: int) -> None:
        self.model = model
        self.priority = Priority.NORMAL
        self._scope = model.scope
        self._number = number
        self._passes = 0
        self._commands: CommandQueue | None = None

    # --- what takes effect at once

    async def allocate(self, kind: ResourceKind, count: int) -> list[int]:
        lease = (await self._residence()).lease
        handles = lease.allocate_nowait(kind, count)
        return await lease.allocate(kind, count) if handles is None else handles

    async def submit(self, draft: PassDraft) -> Reply[PassResult]:
        residence = await self._residence()
        plan = _PassPlan.check(draft, residence, self.model.facts.page_size)
        copies = await self._make_writable(plan, residence)
        forward = self._forward_pass(plan, copies)
        residence.loop.track(forward)
        self._passes += 1
        commands = await self._command_queue()
        await commands.submit(forward)
        return forward.reply

    # --- what takes its turn

    async def deallocate(self, kind: ResourceKind, handles: Sequence[int]) -> None:
        pool, tenancy = await self._pool(kind)
        pages = pool.give_up(tenancy, handles)
        await self._post(lambda _ok: pool.take_back(tenancy, pages))

    async def export(self, kind: ResourceKind, handles: Sequence[int], name: str) -> None:
        pool, tenancy = await self._pool(kind)
        residence = await self._residence()
        pages = set(tenancy.resolve(handles, pool.what))
        if residence.loop.writes_elsewhere(self._scope.owner, self._number, pages):
            raise GuestFault(
                f"export {name!r}: a pass of another queue still writes these pages;"
                " synchronize that queue first"
            )
        export = pool.export(tenancy, handles, name)
        await (await self._post(lambda _ok: pool.publish(export))).answer()

    async def import_exported(self, kind: ResourceKind, name: str) -> list[int]:
        pool, tenancy = await self._pool(kind)

        def find_and_import(_ok: bool) -> list[int]:
            export = pool.find_export(tenancy.owner.tenant, name)
            if export is None:
                raise self._no_such_export(kind, name)
            self.model.model.lost_exports.pop((tenancy.owner.tenant, kind, name), None)
            return pool.import_export(tenancy, export)

        handles: list[int] = await (await self._post(find_and_import)).answer()
        return handles

    async def release_exported(self, kind: ResourceKind, name: str) -> None:
        pool, tenancy = await self._pool(kind)

        def find_and_release(_ok: bool) -> None:
            export = pool.find_export(tenancy.owner.tenant, name)
            if export is None:
                raise self._no_such_export(kind, name)
            pool.release(export)

        await (await self._post(find_and_release)).answer()

    async def all_exported(self, kind: ResourceKind) -> list[tuple[str, int]]:
        pool, tenancy = await self._pool(kind)
        reply = await self._post(lambda _ok: pool.exports(tenancy.owner.tenant))
        found: list[tuple[str, int]] = await reply.answer()
        return found

    async def synchronize(self) -> Reply[bool]:
        return await self._post(lambda succeeded: succeeded)

    async def debug_query(self, query: str) -> Reply[str]:
        reply: Reply[str] = Reply()
        verb, _, rest = query.partition(" ")
        if query == "ping":
            turn = await self._post(lambda _ok: None)
            self._scope.queues.start_soon(self._ping, turn, reply)
        elif verb == "render-chat":
            try:
                reply.fill(self.model.render_chat(rest))
            except PieError as error:
                reply.fill(f"error: {error}")
        else:
            reply.fill(f"unknown query: {query}")
        return reply

    async def _ping(self, turn: Reply[None], reply: Reply[str]) -> None:
        await turn.wait()
        await (await self._residence()).loop.ping(reply)

    # --- helpers, in the order of use

    async def _residence(self) -> Residence:
        return await self._scope.residence(self.model.model)

    async def _pool(self, kind: ResourceKind) -> tuple[PagePool, Tenancy]:
        lease = (await self._residence()).lease
        if kind not in lease.pools:
            raise GuestFault(f"resource type {int(kind)} (adapters) is not served yet")
        return lease.pools[kind], lease.tenancies[kind]

    async def _command_queue(self) -> CommandQueue:
        """The queue's loop starts when it first has something to do."""
        if self._commands is None:
            loop = (await self._residence()).loop
            self._commands = CommandQueue(loop, self._scope.limits, self._scope.ports)
            self._scope.queues.start_soon(self._commands.run)
        return self._commands

    async def _post(self, deed: Callable[[bool], Any]) -> Reply[Any]:
        reply: Reply[Any] = Reply()
        commands = await self._command_queue()
        await commands.run_in_turn(RunCommand(deed, reply))
        return reply

    async def _make_writable(
        self, plan: _PassPlan, residence: Residence
    ) -> tuple[tuple[PageId, PageId], ...]:
        """Copy on write: pages that somebody else holds, too, are replaced by copies."""
        kind = ResourceKind.KV_PAGE
        pool, tenancy = residence.lease.pools[kind], residence.lease.tenancies[kind]
        indices = [i for i in plan.written_indices() if pool.is_shared(plan.pages[i])]
        if not indices:
            return ()
        fresh = await self.allocate(kind, len(indices))
        copies = []
        for index, handle in zip(indices, map(PageHandle, fresh), strict=True):
            source, target = plan.pages[index], tenancy.pages[handle]
            if not pool.is_shared(source):  # the others left while we waited for room
                pool.take_back(tenancy, pool.give_up(tenancy, (handle,)))
                continue
            pool.replace(tenancy, plan.draft.pages[index], handle)
            plan.pages[index] = target
            copies.append((source, target))
        plan.sources = [source for source, _ in copies]
        return tuple(copies)

    def _forward_pass(
        self, plan: _PassPlan, copies: tuple[tuple[PageId, PageId], ...]
    ) -> ForwardPass:
        draft, owner = plan.draft, self._scope.owner
        return ForwardPass(
            owner=owner,
            queue=self._number,
            number=self._passes,
            priority=self.priority,
            tokens=plan.tokens,
            positions=draft.positions,
            pages=tuple(plan.pages),
            page_size=plan.page_size,
            last_page_length=draft.last_page_length,
            mask=draft.mask,
            outputs=draft.outputs,
            embed_outputs=plan.embed_outputs,
            copies=copies,
            pins=(*plan.pages, *plan.sources),
            embed_pins=plan.embed_pins,
            seed=pass_seed(self._scope.ports.engine_seed, owner.number, self._number, self._passes),
            submitted_at=trio.current_time(),
            reply=Reply(),
        )

    def _no_such_export(self, kind: ResourceKind, name: str) -> PieError:
        lost = self.model.model.lost_exports.get((self._scope.owner.tenant, kind, name))
        if lost is not None:
            return WorkerLost(f"export {name!r} was lost with worker generation {lost}")
        return GuestFault(f"there is no export named {name!r}")


@attrs.define(eq=False)
class _PassPlan:
    """A draft whose handles are resolved."""

    draft: PassDraft
    page_size: int
    tokens: tuple[int, ...]
    pages: list[PageId]
    embed_outputs: tuple[tuple[int, int], ...]
    embed_pins: tuple[PageId, ...]
    sources: list[PageId] = attrs.field(factory=list)

    @classmethod
    def check(cls, draft: PassDraft, residence: Residence, page_size: int) -> _PassPlan:
        """Raises `GuestFault` for a handle that is not the guest's, before anything changed."""
        lease = residence.lease
        pages = list(lease.tenancies[ResourceKind.KV_PAGE].resolve(draft.pages, "KV page"))
        tokens, read = _with_slots(draft.tokens, lease.tenancies[ResourceKind.EMBEDDING])
        outputs, written = _embed_outputs(draft.embed_outputs, lease)
        plan = cls(draft, page_size, tokens, pages, outputs, (*read, *written))
        plan._check_written_once()
        return plan

    def written_indices(self) -> range:
        total = (len(self.pages) - 1) * self.page_size + self.draft.last_page_length
        return range((total - len(self.tokens)) // self.page_size, len(self.pages))

    def _check_written_once(self) -> None:
        for index in self.written_indices():
            if self.pages.count(self.pages[index]) > 1:
                raise GuestFault(
                    f"KV page {self.draft.pages[index]} stands twice in this pass, which writes it"
                )


def _with_slots(
    tokens: tuple[int, ...], tenancy: Tenancy
) -> tuple[tuple[int, ...], tuple[PageId, ...]]:
    """Rows that read embeddings, with the slot in place of the handle; and those slots."""
    handles = [-1 - token for token in tokens if token < 0]
    if not handles:
        return tokens, ()
    slots = tenancy.resolve(handles, "embedding")
    remaining = iter(slots)
    return tuple(-1 - next(remaining) if token < 0 else token for token in tokens), slots


def _embed_outputs(
    wanted: tuple[tuple[int, int], ...], lease: Lease
) -> tuple[tuple[tuple[int, int], ...], tuple[PageId, ...]]:
    tenancy = lease.tenancies[ResourceKind.EMBEDDING]
    slots = tenancy.resolve([handle for _, handle in wanted], "embedding")
    pool = lease.pools[ResourceKind.EMBEDDING]
    for slot, (_, handle) in zip(slots, wanted, strict=True):
        if pool.is_shared(slot):
            raise GuestFault(f"embedding {handle} is exported or imported, and so read-only")
    rows = (row for row, _ in wanted)
    return tuple(zip(rows, slots, strict=True)), slots
