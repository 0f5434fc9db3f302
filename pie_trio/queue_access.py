"""One command queue as its instance sees it: the `QueueHandle` that host functions use.

Every pass is resolved, made writable and pinned here, in the instance's own task. A refused call
has changed nothing; a cancelled one leaves only what the lease will give back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import trio

from pie_trio.actors.command_queue import CommandQueue
from pie_trio.decode import Decode, DecodeDraft
from pie_trio.errors import GuestFault, NoSuchExport, PieError, TooMany, WorkerLost
from pie_trio.handles import ModelHandle
from pie_trio.instance_scope import InstanceScope
from pie_trio.mailbox import Reply
from pie_trio.messages import (
    CopyPage,
    ForwardPass,
    PageHandle,
    PageId,
    PassDraft,
    PassResult,
    Priority,
    ResourceKind,
    RunCommand,
)
from pie_trio.pass_plan import PassPlan, forget_slots
from pie_trio.served_model import Residence, ServedModel
from pie_trio.services.page_copies import check_copy
from pie_trio.services.page_pool import PagePool, Tenancy
from pie_trio.services.pass_chunks import pass_seed, step_seed
from pie_trio.services.pass_pins import writes_elsewhere


class ModelAccess(ModelHandle, Protocol):
    """The model of a queue, with what only this side may use."""

    @property
    def model(self) -> ServedModel: ...
    @property
    def scope(self) -> InstanceScope: ...


class InstanceQueue:
    """Implements `handles.QueueHandle`."""

    def __init__(self, model: ModelAccess, number: int) -> None:
        self.model = model
        self.priority = Priority.NORMAL
        self._scope: InstanceScope = model.scope
        self._number = number
        self._passes = 0
        self._commands: CommandQueue | None = None
        self._decode: Decode | None = None  # the last one, until its steps are counted

    # --- what takes effect at once

    async def allocate(self, kind: ResourceKind, count: int) -> list[int]:
        lease = (await self._residence()).lease
        handles = lease.allocate_nowait(kind, count)
        return await lease.allocate(kind, count) if handles is None else handles

    async def submit(self, draft: PassDraft) -> Reply[PassResult]:
        return (await self._submit(draft)).reply

    async def start(self, draft: PassDraft, sequence: DecodeDraft) -> Decode:
        self._decode = (await self._submit(draft, sequence)).decode
        assert self._decode is not None, "a first pass has its sequence"
        return self._decode

    def truncate(self, decode: Decode, keep: int) -> None:
        lease = self._scope.residences[self.model.model.name].lease
        forget_slots(decode.truncate(keep), decode.pages, self.model.facts.page_size, lease)

    async def _submit(self, draft: PassDraft, sequence: DecodeDraft | None = None) -> ForwardPass:
        residence = await self._residence()
        size = await self._scope.backlog.wait_for_room(draft)
        plan = PassPlan.check(draft, residence.lease, self.model.facts.page_size, sequence)
        if any(_is_shared(page, residence) for page in plan.reserve):
            raise GuestFault("a page to grow into is exported or imported, and so read-only")
        self._count_steps()
        if shared := self._shared(plan, residence):
            # What is copied must not change hands before the pass itself pins it.
            with residence.lease.pools[ResourceKind.KV_PAGE].pinned(tuple(plan.pages)):
                copies = await self._make_writable(plan, shared, residence)
                forward = self._track(plan, copies, residence)
        else:
            forward = self._track(plan, (), residence)
        plan.mark_written(residence.lease)
        self._scope.backlog.note(size, forward.reply)
        self._passes += 1
        await (self._commands or await self._command_queue()).submit(forward)
        await residence.loop.gathering.stand_back(self._scope.owner.number)
        return forward

    # --- what takes its turn

    async def deallocate(self, kind: ResourceKind, handles: Sequence[int]) -> None:
        pool, tenancy = await self._pool(kind)
        pages = pool.give_up(tenancy, handles)
        await self._post(lambda _ok: pool.take_back(tenancy, pages))

    async def export(self, kind: ResourceKind, handles: Sequence[int], name: str) -> None:
        pool, tenancy = await self._pool(kind)
        residence = await self._residence()
        pages = set(tenancy.resolve(handles, pool.what))
        if writes_elsewhere(residence.loop.unsettled(self._scope.owner), self._number, kind, pages):
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
            bound = self._scope.limits.page_handles_max
            if len(tenancy.pages) + len(export.pages) > bound:
                raise TooMany(f"page_handles_max: an instance has at most {bound} handles")
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

    async def copy_page(self, source: int, target: int, tokens: int) -> None:
        pool, tenancy = await self._pool(ResourceKind.KV_PAGE)
        residence = await self._residence()

        def check_and_copy(_ok: bool) -> None:
            copied = CopyPage(tenancy.owner, *tenancy.resolve((source, target), pool.what))
            unsettled = residence.loop.unsettled(tenancy.owner)
            check_copy(copied, tokens, pool, self._number, unsettled)
            residence.loop.copy_page(copied)
            pool.marks.copy_first(copied.source, copied.target, tokens)

        await (await self._post(check_and_copy)).answer()

    async def all_exported(self, kind: ResourceKind) -> list[tuple[str, int]]:
        pool, tenancy = await self._pool(kind)
        reply = await self._post(lambda _ok: pool.exports(tenancy.owner.tenant))
        found: list[tuple[str, int]] = await reply.answer()
        return found

    async def synchronize(self) -> Reply[bool]:
        return await self._post(lambda succeeded: succeeded, is_barrier=True)

    async def debug_query(self, query: str) -> Reply[str]:
        reply: Reply[str] = Reply()
        verb, _, rest = query.partition(" ")
        if query == "ping":
            loop = (await self._residence()).loop
            await self._post(lambda _ok: loop.ping(reply))
        elif verb == "render-chat":
            try:
                reply.fill(self.model.render_chat(rest))
            except PieError as error:
                reply.fill(f"error: {error}")
        else:
            reply.fill(f"unknown query: {query}")
        return reply

    # --- helpers, in the order of use

    async def _residence(self) -> Residence:
        model = self.model.model
        found = self._scope.residences.get(model.name)
        return await self._scope.residence(model) if found is None else found

    async def _pool(self, kind: ResourceKind) -> tuple[PagePool, Tenancy]:
        lease = (await self._residence()).lease
        if kind not in lease.pools:
            raise GuestFault(f"resource type {int(kind)} (adapters) is not served yet")
        return lease.pools[kind], lease.tenancies[kind]

    async def _command_queue(self) -> CommandQueue:
        if self._commands is None:
            loop = (await self._residence()).loop
            scope = self._scope
            self._commands = CommandQueue(loop, scope.queues, scope.limits, scope.ports)
        return self._commands

    async def _post(self, deed: Callable[[bool], Any], is_barrier: bool = False) -> Reply[Any]:
        reply: Reply[Any] = Reply()
        commands = await self._command_queue()
        await commands.run_in_turn(RunCommand(deed, reply, is_barrier))
        return reply

    def _shared(self, plan: PassPlan, residence: Residence) -> list[int]:
        """The indices of the pages that it writes and somebody else holds, too."""
        return [i for i in plan.written_ranges if _is_shared(plan.pages[i], residence)]

    def _track(
        self, plan: PassPlan, copies: tuple[tuple[PageId, PageId], ...], residence: Residence
    ) -> ForwardPass:
        """From here on the pass itself pins its pages."""
        forward = self._forward_pass(plan, copies, residence)
        self._scope.ports.hit("queue.submit")
        residence.loop.track(forward)
        return forward

    async def _make_writable(
        self, plan: PassPlan, indices: Sequence[int], residence: Residence
    ) -> tuple[tuple[PageId, PageId], ...]:
        """Copy on write: pages that somebody else holds, too, are replaced by copies."""
        kind = ResourceKind.KV_PAGE
        pool, tenancy = residence.lease.pools[kind], residence.lease.tenancies[kind]
        fresh = await self.allocate(kind, len(indices))
        copies = []
        for index, handle in zip(indices, map(PageHandle, fresh), strict=True):
            source, target = plan.pages[index], tenancy.pages[handle]
            if not _is_shared(source, residence):  # the others left while we waited for room
                pool.take_back(tenancy, pool.give_up(tenancy, (handle,)))
                continue
            pool.replace(tenancy, plan.draft.pages[index], handle)
            plan.pages[index] = target
            copies.append((source, target))
        plan.sources = [source for source, _ in copies]
        return tuple(copies)

    def _count_steps(self) -> None:
        """The steps of the last sequence had numbers, too."""
        if self._decode is not None:
            self._passes += self._decode.numbers_used - 1
            self._decode = None

    def _forward_pass(
        self, plan: PassPlan, copies: tuple[tuple[PageId, PageId], ...], residence: Residence
    ) -> ForwardPass:
        draft, owner = plan.draft, self._scope.owner
        origin = (self._scope.ports.engine_seed, owner.number, self._number, self._passes)
        chosen, row = draft.seed, len(draft.tokens) - 1
        seed_of = partial(step_seed, origin, chosen, row)
        now = trio.current_time()
        decode = plan.decode(seed_of, residence.loop.interrupt, self._scope.limits, now)
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
            pins=(*plan.pages, *plan.sources, *plan.reserve),
            embed_pins=plan.embed_pins,
            seed=pass_seed(*origin) if chosen is None else chosen,
            submitted_at=now,
            reply=Reply(),
            decode=decode,
            grammar=draft.grammar,
        )

    def _no_such_export(self, kind: ResourceKind, name: str) -> PieError:
        lost = self.model.model.lost_exports.get((self._scope.owner.tenant, kind, name))
        if lost is not None:
            return WorkerLost(f"export {name!r} was lost with worker generation {lost}")
        return NoSuchExport(f"there is no export named {name!r}")


def _is_shared(page: PageId, residence: Residence) -> bool:
    pool = residence.lease.pools[ResourceKind.KV_PAGE]
    return pool.is_shared(page) or residence.loop.passes.pins.is_source(page)
