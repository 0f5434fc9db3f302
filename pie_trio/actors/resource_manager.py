"""Grants pages to leases; one lease an instance and a model, one session a lease.

When a lease closes, its pages are free again before anybody can observe the death: burying is a
synchronous call in the lease's `finally`, never a message. Nobody is ended for another's request:
who finds no room waits in order of age, and is refused when nobody can make room any more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from pie_trio.config import Limits
from pie_trio.errors import OutOfPages, PieError, WorkerLost, retold
from pie_trio.events import ExportDropped, PagesRefused
from pie_trio.mailbox import Reply
from pie_trio.messages import AllocatePages, Owner, ResourceKind
from pie_trio.ports import Ports
from pie_trio.services.page_pool import PagePool, Tenancy

Pools = dict[ResourceKind, PagePool]


@attrs.define(eq=False)
class Lease:
    """An instance's claim on one model: the way to its pages."""

    owner: Owner
    tenancies: dict[ResourceKind, Tenancy]
    pools: Pools
    waits_for_client: Callable[[], bool]
    _send: trio.MemorySendChannel[AllocatePages]
    _manager: ResourceManager
    _limits: Limits

    async def allocate(self, kind: ResourceKind, count: int) -> list[int]:
        """Handles of fresh pages. Cancelled: what was granted belongs to the lease all the same."""
        request = AllocatePages(kind, count, Reply())
        await self._send.send(request)
        with trio.move_on_after(self._limits.page_wait_seconds):
            try:
                return await request.reply.answer()
            finally:
                self._manager.withdraw(request.reply)
        if request.reply.is_filled:  # it came in the very step in which the time ran out
            return request.reply.take()
        waited = f"waited page_wait_seconds = {self._limits.page_wait_seconds:g} s"
        refusal = self._manager.refusal(self, kind, count, waited)
        request.reply.refuse(refusal)  # the request may still lie in the mailbox
        raise refusal

    def allocate_nowait(self, kind: ResourceKind, count: int) -> list[int] | None:
        """The fast path: None when there is no room, or when somebody older waits."""
        return self._manager.grant_nowait(self, kind, count)


@attrs.frozen(eq=False)
class Waiter:
    """An allocation that found no room."""

    lease: Lease
    kind: ResourceKind
    count: int
    reply: Reply[list[int]]


class ResourceManager:
    """All pages of one worker generation, and who waits for them."""

    def __init__(
        self, model: str, pools: Pools, limits: Limits, ports: Ports, sessions: trio.Nursery
    ) -> None:
        self.pools = pools
        self._model = model
        self._limits = limits
        self._ports = ports
        self._sessions = sessions
        self._waiters: list[Waiter] = []  # oldest instance first
        self._leases: dict[int, Lease] = {}
        self._is_serving = False
        self._lost: WorkerLost | None = None
        for pool in pools.values():
            pool.on_pages_back = self.reconsider

    @asynccontextmanager
    async def open_lease(
        self, owner: Owner, waits_for_client: Callable[[], bool]
    ) -> AsyncIterator[Lease]:
        """While open, the owner may allocate. Afterwards it is a tombstone."""
        if self._lost is not None:
            raise retold(self._lost)
        send, receive = trio.open_memory_channel[AllocatePages](self._limits.mailbox)
        tenancies = {kind: pool.open_tenancy(owner) for kind, pool in self.pools.items()}
        lease = Lease(owner, tenancies, self.pools, waits_for_client, send, self, self._limits)
        self._leases[owner.number] = lease
        self._sessions.start_soon(self._serve, lease, receive)
        try:
            yield lease
        finally:
            self.bury(lease)
            send.close()

    def bury(self, lease: Lease) -> None:
        """Synchronous: every page is back, or pinned only by a batch in flight."""
        self._leases.pop(lease.owner.number, None)
        self._waiters = [w for w in self._waiters if w.lease is not lease]
        for kind, tenancy in lease.tenancies.items():
            self.pools[kind].bury(tenancy)
        self.reconsider()

    def close(self, lost: WorkerLost) -> None:
        """The generation ended: whoever waits is refused, and nothing is granted any more."""
        self._lost = lost
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.reply.refuse(lost)

    async def _serve(self, lease: Lease, receive: trio.MemoryReceiveChannel[AllocatePages]) -> None:
        """The session of one lease; ends when the lease closes its end."""
        async with receive:
            async for request in receive:
                self._ports.hit("resource_manager.request")
                if lease.owner.number not in self._leases:
                    return
                self._consider(Waiter(lease, request.kind, request.count, request.reply))

    def _consider(self, waiter: Waiter) -> None:
        pool = self.pools[waiter.kind]
        if waiter.reply.is_filled:
            return  # its asker has given up
        if self._lost is not None:
            waiter.reply.refuse(self._lost)
        elif waiter.count > pool.capacity:
            why = f"this model has {pool.capacity} of them in all"
            waiter.reply.refuse(self.refusal(waiter.lease, waiter.kind, waiter.count, why))
        else:
            self._waiters.append(waiter)
            self._waiters.sort(key=lambda w: w.lease.owner.number)
            self.reconsider()

    def grant_nowait(self, lease: Lease, kind: ResourceKind, count: int) -> list[int] | None:
        if self._lost is not None:
            raise retold(self._lost)
        if any(w.kind == kind for w in self._waiters) or not self.pools[kind].has_room(count):
            return None
        return self.pools[kind].grant(lease.tenancies[kind], count)

    def withdraw(self, reply: Reply[list[int]]) -> None:
        """The asker of `reply` no longer waits."""
        remaining = [w for w in self._waiters if w.reply is not reply]
        if len(remaining) != len(self._waiters):
            self._waiters = remaining
            self.reconsider()

    def reconsider(self) -> None:
        """Pages came back, or somebody stopped making progress: serve the waiters again."""
        if self._is_serving or not self._waiters:
            return
        self._is_serving = True
        try:
            for kind in self.pools:
                while self._serve_first(kind):
                    pass
        finally:
            self._is_serving = False

    def _serve_first(self, kind: ResourceKind) -> bool:
        """Serves or refuses one waiter of a kind; False when there is nothing to do now."""
        waiters = [w for w in self._waiters if w.kind == kind]
        if not waiters:
            return False
        first = waiters[0]
        pool = self.pools[kind]
        if self._make_room(pool, first.count):
            self._waiters.remove(first)
            first.reply.fill(pool.grant(first.lease.tenancies[kind], first.count))
            return True
        if self._may_come_back(pool, kind):
            return False
        youngest = waiters[-1]
        self._waiters.remove(youngest)
        why = "nobody who holds any can go on"
        youngest.reply.refuse(self.refusal(youngest.lease, kind, youngest.count, why))
        return True

    def _make_room(self, pool: PagePool, count: int) -> bool:
        while not pool.has_room(count):
            if count <= pool.free_count + pool.limbo_count:
                return False  # enough is on its way: no export need go
            export = pool.drop_unused_export()
            if export is None:
                return False
            now = trio.current_time()
            self._ports.emit(
                ExportDropped(now, self._model, export.tenant, export.name, len(export.pages))
            )
        return True

    def _may_come_back(self, pool: PagePool, kind: ResourceKind) -> bool:
        """Whether some page is pinned only or given up, or its holder can still go on."""
        waiting = {w.lease.owner.number for w in self._waiters}
        if pool.limbo_count:
            return True
        return any(
            tenancy.leaving
            or (
                tenancy.held
                and tenancy.owner.number not in waiting
                and not self._leases[tenancy.owner.number].waits_for_client()
            )
            for tenancy in pool.tenancies()
        )

    def refusal(self, lease: Lease, kind: ResourceKind, count: int, why: str) -> PieError:
        """The error that names who holds what, of the asker's own tenant by name."""
        pool = self.pools[kind]
        now = trio.current_time()
        self._ports.emit(
            PagesRefused(now, self._model, lease.owner.instance, count, pool.free_count)
        )
        held = sorted(
            ((len(t.held), t.owner) for t in pool.tenancies() if t.held),
            key=lambda pair: (-pair[0], pair[1].number),
        )
        holders = [
            f"{pages} by {'you' if owner == lease.owner else _name(owner, lease.owner.tenant)}"
            for pages, owner in held[:8]
        ]
        exported = pool.books().exported
        if exported:
            holders.append(f"{exported} exported")
        return OutOfPages(
            f"needed {count} {pool.what}s, {pool.free_count} of {pool.capacity} are free"
            f" ({', '.join(holders) or 'none held'}): {why}",
            needed=count,
            free=pool.free_count,
            held_by_you=len(lease.tenancies[kind].held),
            capacity=pool.capacity,
        )


def _name(owner: Owner, tenant: str) -> str:
    if owner.tenant != tenant:
        return "another tenant"
    return f"{owner.program} ({owner.instance[:8]})"
