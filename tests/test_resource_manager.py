"""Who waits for pages, who is refused, and what a death gives back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pie_trio.actors.resource_manager import Lease, ResourceManager
from pie_trio.config import Limits
from pie_trio.errors import OutOfPages, WorkerLost
from pie_trio.events import Event, ExportDropped, PagesRefused
from pie_trio.mailbox import Reply
from pie_trio.messages import AllocatePages, InstanceId, Owner, ResourceKind
from pie_trio.ports import Ports, RandomStreams
from pie_trio.services.page_pool import PagePool

KV = ResourceKind.KV_PAGE


@attrs.define(eq=False)
class Bench:
    """A manager over eight pages, and leases by number."""

    manager: ResourceManager
    pool: PagePool
    stack: AsyncExitStack
    nursery: trio.Nursery
    events: list[Event]
    for_client: set[int] = attrs.field(factory=set)
    got: dict[int, list[int] | Exception] = attrs.field(factory=dict)

    async def lease(self, number: int) -> Lease:
        owner = Owner(number, InstanceId(f"instance-{number}"), "local", "program@1.0.0")
        waits: Callable[[], bool] = lambda: number in self.for_client  # noqa: E731
        return await self.stack.enter_async_context(self.manager.open_lease(owner, waits))

    def ask(self, lease: Lease, count: int) -> None:
        async def allocate() -> None:
            number = lease.owner.number
            try:
                self.got[number] = await lease.allocate(KV, count)
            except (OutOfPages, WorkerLost) as error:
                self.got[number] = error

        self.nursery.start_soon(allocate)


@asynccontextmanager
async def open_bench(limits: Limits | None = None) -> AsyncIterator[Bench]:
    events: list[Event] = []
    ports = Ports(RandomStreams(1), emit=events.append)
    async with trio.open_nursery() as sessions:
        pool = PagePool(8, "KV page", exports_max=8)
        limits = limits or Limits()
        manager = ResourceManager("model", {KV: pool}, limits, ports, sessions)
        async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
            yield Bench(manager, pool, stack, nursery, events)
            nursery.cancel_scope.cancel()
        assert pool.books().owned == 0, "every lease has given its pages back"
        sessions.cancel_scope.cancel()


async def test_a_waiter_gets_the_pages_that_another_gives_back() -> None:
    async with open_bench() as bench:
        a, b = await bench.lease(1), await bench.lease(2)
        handles = await a.allocate(KV, 6)
        bench.ask(b, 4)
        await wait_all_tasks_blocked()
        assert bench.got == {}
        bench.pool.take_back(a.tenancies[KV], bench.pool.give_up(a.tenancies[KV], handles[:2]))
        await wait_all_tasks_blocked()
        assert len(bench.got[2]) == 4  # type: ignore[arg-type]


async def test_the_oldest_instance_is_served_first_and_nobody_overtakes_a_waiter() -> None:
    async with open_bench() as bench:
        a, b, c, d = [await bench.lease(n) for n in (1, 2, 3, 4)]
        handles = await a.allocate(KV, 8)
        bench.ask(d, 1)
        await wait_all_tasks_blocked()
        bench.ask(c, 2)
        bench.ask(b, 2)
        await wait_all_tasks_blocked()
        tenancy = a.tenancies[KV]
        bench.pool.take_back(tenancy, bench.pool.give_up(tenancy, handles[:1]))
        await wait_all_tasks_blocked()
        assert bench.got == {}, "one page is not enough for the oldest, and the youngest waits too"
        assert d.allocate_nowait(KV, 1) is None
        bench.pool.take_back(tenancy, bench.pool.give_up(tenancy, handles[1:3]))
        await wait_all_tasks_blocked()
        assert list(bench.got) == [2]


async def test_the_youngest_waiter_is_refused_when_nobody_can_go_on() -> None:
    async with open_bench() as bench:
        a, b = await bench.lease(1), await bench.lease(2)
        await a.allocate(KV, 4)
        await b.allocate(KV, 4)
        bench.ask(a, 2)
        await wait_all_tasks_blocked()
        assert bench.got == {}, "the other holder still runs"
        bench.ask(b, 1)
        await wait_all_tasks_blocked()
        refusal = str(bench.got[2])
        assert "4 by you" in refusal
        assert "program@1.0.0 (instance" in refusal
        assert 1 not in bench.got, "the older one goes on waiting for the one that runs again"
        assert any(isinstance(event, PagesRefused) for event in bench.events)


async def test_a_holder_that_waits_for_its_client_cannot_make_room() -> None:
    async with open_bench() as bench:
        a, b = await bench.lease(1), await bench.lease(2)
        await a.allocate(KV, 8)
        bench.ask(b, 1)
        await wait_all_tasks_blocked()
        assert bench.got == {}
        bench.for_client.add(1)
        bench.manager.reconsider()  # what parking does
        await wait_all_tasks_blocked()
        assert isinstance(bench.got[2], OutOfPages)


async def test_pages_of_a_batch_in_flight_will_come_back() -> None:
    async with open_bench() as bench:
        a, b = await bench.lease(1), await bench.lease(2)
        pages = a.tenancies[KV].resolve(await a.allocate(KV, 8), "page")
        bench.pool.pin(pages)
        bench.manager.bury(a)
        bench.ask(b, 1)
        await wait_all_tasks_blocked()
        assert bench.got == {}
        bench.pool.unpin(pages)
        await wait_all_tasks_blocked()
        assert len(bench.got[2]) == 1  # type: ignore[arg-type]


async def test_unused_exports_are_dropped_before_anybody_waits() -> None:
    async with open_bench() as bench:
        a, b = await bench.lease(1), await bench.lease(2)
        bench.pool.publish(bench.pool.export(a.tenancies[KV], await a.allocate(KV, 8), "old"))
        bench.manager.bury(a)
        assert len(await b.allocate(KV, 3)) == 3
        assert [e.name for e in bench.events if isinstance(e, ExportDropped)] == ["old"]


async def test_more_than_there_is_is_refused_at_once() -> None:
    async with open_bench() as bench:
        a = await bench.lease(1)
        with pytest.raises(OutOfPages, match="8 of them in all"):
            await a.allocate(KV, 9)


async def test_a_wait_has_a_limit_that_the_refusal_names(autojump_clock: MockClock) -> None:
    async with open_bench() as bench:
        a, b = await bench.lease(1), await bench.lease(2)
        await a.allocate(KV, 8)
        with pytest.raises(OutOfPages, match="page_wait_seconds = 30 s"):
            await b.allocate(KV, 1)
        assert bench.pool.books().owned == 8


async def test_a_request_that_outlives_its_lease_in_the_mailbox_is_served_no_more() -> None:
    async with open_bench() as bench:
        a, b = await bench.lease(1), await bench.lease(2)
        handles = await a.allocate(KV, 8)
        await wait_all_tasks_blocked()
        request = AllocatePages(KV, 1, Reply())
        b._send.send_nowait(request)
        bench.manager.bury(b)
        await wait_all_tasks_blocked()
        tenancy = a.tenancies[KV]
        bench.pool.take_back(tenancy, bench.pool.give_up(tenancy, handles))
        await wait_all_tasks_blocked()
        assert not request.reply.is_filled
        assert bench.pool.books().owned == 0


async def test_a_cancelled_wait_leaves_the_line() -> None:
    async with open_bench() as bench:
        a, b = await bench.lease(1), await bench.lease(2)
        handles = await a.allocate(KV, 8)
        with trio.move_on_after(0):
            await b.allocate(KV, 1)
        tenancy = a.tenancies[KV]
        bench.pool.take_back(tenancy, bench.pool.give_up(tenancy, handles))
        await wait_all_tasks_blocked()
        assert bench.pool.books().owned == 0


async def test_the_end_of_a_generation_refuses_whoever_waits() -> None:
    async with open_bench() as bench:
        a, b = await bench.lease(1), await bench.lease(2)
        await a.allocate(KV, 8)
        bench.ask(b, 1)
        await wait_all_tasks_blocked()
        bench.manager.close(WorkerLost("gone"))
        await wait_all_tasks_blocked()
        assert isinstance(bench.got[2], WorkerLost)
        with pytest.raises(WorkerLost):
            a.allocate_nowait(KV, 0)


async def test_a_generation_that_ended_opens_no_lease_and_serves_no_mailbox() -> None:
    async with open_bench() as bench:
        a = await bench.lease(1)
        await wait_all_tasks_blocked()
        request = AllocatePages(KV, 1, Reply())
        a._send.send_nowait(request)
        bench.manager.close(WorkerLost("gone"))
        await wait_all_tasks_blocked()
        with pytest.raises(WorkerLost):
            request.reply.take()
        with pytest.raises(WorkerLost):
            await bench.lease(2)
        assert bench.pool.books().owned == 0
