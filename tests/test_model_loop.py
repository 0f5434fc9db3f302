"""One generation's loop over a link whose answers the test holds in its hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from gpu_worker import wire
from gpu_worker.wire import GrammarBounds
from pie_trio.actors.model import ModelLoop
from pie_trio.config import Batching, BatchTrigger, Limits
from pie_trio.errors import PassFailed, PieError, Terminated, WorkerLost
from pie_trio.mailbox import Reply
from pie_trio.messages import ForwardPass, InstanceId, Owner, PageId, ResourceKind
from pie_trio.ports import Ports, RandomStreams
from pie_trio.services.batch_policy import written_slots
from pie_trio.services.grammar_book import GrammarBook
from pie_trio.services.page_pool import PagePool, Tenancy
from pie_trio.services.worker_answers import OnPart, in_one
from tests.test_batch_policy import forward as draft_of

KV = ResourceKind.KV_PAGE
GONE = WorkerLost("gone")
AT_ONCE = Batching(BatchTrigger.T_ONLY, t_seconds=0.0)  # nothing gathers


@attrs.define(eq=False)
class HeldLink:
    """A `WorkerLink` that answers when it is told to."""

    batches: list[wire.Batch] = attrs.field(factory=list)
    answers: list[Reply[wire.BatchResult]] = attrs.field(factory=list)

    async def wait_ready(self) -> wire.Hello | WorkerLost:
        return GONE

    async def wait_lost(self) -> WorkerLost:
        return GONE

    def halt(self) -> bool:
        return True  # and answers when it is told to

    async def execute(self, batch: wire.Batch, on_part: OnPart = in_one) -> wire.BatchResult:
        self.batches.append(batch)
        self.answers.append(Reply())
        return await self.answers[-1].answer()

    def answer(self, *errors: str | None) -> None:
        """The newest batch, request by request; without errors when there are none."""
        batch = self.batches[-1]
        told = errors or (None,) * len(batch.requests)
        answers = tuple(wire.Answer((), (), error) for error in told)
        self.answers[-1].fill(wire.BatchResult(batch.generation, batch.number, 0.0, answers))


@attrs.define(eq=False)
class Bench:
    """A running loop over eight pages."""

    loop: ModelLoop
    link: HeldLink
    pool: PagePool
    faults: list[PieError]

    def tenancy(self, number: int) -> Tenancy:
        owner = Owner(number, InstanceId(f"i{number}"), "local", "p@1.0.0")
        return self.pool.open_tenancy(owner)

    def submit(self, tenancy: Tenancy, rows: int = 1, queue: int = 0) -> ForwardPass:
        """A pass over a fresh page, without outputs."""
        pages = tenancy.resolve(self.pool.grant(tenancy, -(-rows // 16)), "page")
        forward = draft_of(rows, pages=pages, queue=queue)
        forward = attrs.evolve(forward, owner=tenancy.owner, pins=pages, reply=Reply())
        self._hand_on(forward)
        return forward

    def behind(self, first: ForwardPass, total: int) -> ForwardPass:
        """One more row on the page of another pass."""
        forward = draft_of(1, pages=first.pages, last=total)
        forward = attrs.evolve(forward, owner=first.owner, pins=first.pages, reply=Reply())
        self._hand_on(forward)
        return forward

    def _hand_on(self, forward: ForwardPass) -> None:
        self.loop.track(forward)
        for page, slots in written_slots(forward).items():
            self.pool.marks.set(page, slots)
        self.loop.submit_nowait(forward)


@asynccontextmanager
async def open_bench(limits: Limits | None = None, budget: int = 64) -> AsyncIterator[Bench]:
    pools = {KV: PagePool(8, "KV page", 8), ResourceKind.EMBEDDING: PagePool(2, "embedding", 8)}
    faults: list[PieError] = []
    link, ports = HeldLink(), Ports(RandomStreams(1))
    loop = ModelLoop(
        *("model", 1, budget, pools, AT_ONCE, limits or Limits(), ports),
        lambda _owner, error: faults.append(error),
        GrammarBook((2,), GrammarBounds(1, 1, 1, 1, 1), 8),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loop.run, link)
        yield Bench(loop, link, pools[KV], faults)
        nursery.cancel_scope.cancel()


async def test_an_answer_that_arrives_with_the_death_of_its_worker_changes_nothing() -> None:
    """It was in the loop's hands already when the generation was closed."""
    async with open_bench() as bench:
        tenancy = bench.tenancy(1)
        forward = bench.submit(tenancy)
        await wait_all_tasks_blocked()
        bench.link.answer()
        bench.loop.close(GONE)
        await wait_all_tasks_blocked()
        with pytest.raises(WorkerLost):
            forward.reply.take()
        bench.pool.bury(tenancy)
        assert bench.pool.books().free == 8


async def test_a_closed_loop_refuses_what_waits_what_flies_and_what_is_in_its_mailbox() -> None:
    async with open_bench(budget=4) as bench:
        tenancy = bench.tenancy(1)
        flying = bench.submit(tenancy, 4)
        await wait_all_tasks_blocked()
        waiting = bench.submit(tenancy, 4, queue=1)
        ping: Reply[str] = Reply()
        bench.loop.ping(ping)
        bench.loop.close(GONE)
        for reply in (flying.reply, waiting.reply, ping):
            with pytest.raises(WorkerLost):
                reply.take()
        with pytest.raises(WorkerLost):
            bench.submit(tenancy)
        bench.pool.bury(tenancy)
        assert bench.pool.books().free == 8


async def test_the_dead_leave_at_once_but_for_what_is_in_flight() -> None:
    async with open_bench(budget=4) as bench:
        dying, living = bench.tenancy(1), bench.tenancy(2)
        flying = bench.submit(dying, 8)  # two chunks
        await wait_all_tasks_blocked()
        waiting = bench.submit(dying, 4, queue=1)
        other = bench.submit(living, 4)
        bench.loop.drop_owner(dying.owner)
        bench.pool.bury(dying)
        assert (bench.pool.books().pinned, bench.pool.books().owned) == (1, 1)
        for forward in (flying, waiting):
            with pytest.raises(Terminated):
                forward.reply.take()
        bench.link.answer()
        await wait_all_tasks_blocked()
        assert bench.pool.books().pinned == 0
        assert [len(r.tokens) for r in bench.link.batches[-1].requests] == [4]
        bench.link.answer()
        await wait_all_tasks_blocked()
        assert other.reply.take().tokens == ()
        assert len(bench.link.batches) == 2, "nothing of the dead was executed any more"


async def test_a_failed_pass_lets_others_behind_it_go_on() -> None:
    async with open_bench(budget=4) as bench:
        tenancy = bench.tenancy(1)
        failing = bench.submit(tenancy, 8)
        behind = bench.submit(tenancy, 2)
        await wait_all_tasks_blocked()
        bench.link.answer("no")
        await wait_all_tasks_blocked()
        assert failing.reply.is_filled
        assert [str(fault) for fault in bench.faults] == ["forward pass: no"]
        bench.link.answer()
        await wait_all_tasks_blocked()
        assert behind.reply.take().tokens == ()
        assert [len(batch.requests) for batch in bench.link.batches] == [1, 1]


@pytest.mark.parametrize("where", ["in the same batch", "in a later batch", "in the mailbox"])
async def test_what_builds_on_a_failed_pass_fails_with_it(where: str) -> None:
    """It would read what the page's last owner left there."""
    async with open_bench(budget=2 if where == "in a later batch" else 64) as bench:
        tenancy = bench.tenancy(1)
        if where != "in the mailbox":
            first = bench.submit(tenancy, 2)
            second, third = (bench.behind(first, total) for total in (3, 4))
            await wait_all_tasks_blocked()
        else:
            first = bench.submit(tenancy, 2)
            await wait_all_tasks_blocked()
            second, third = (bench.behind(first, total) for total in (3, 4))
        bench.link.answer(*["no", None, None][: len(bench.link.batches[-1].requests)])
        await wait_all_tasks_blocked()
        for forward in (first, second, third):
            with pytest.raises(PassFailed):
                forward.reply.take()
        assert len(bench.link.batches) == 1, "nothing of them is executed any more"
        assert bench.pool.marks.gaps(first.pages, 16, 4) == [(0, 4)]
        bench.pool.bury(tenancy)
        assert bench.pool.books().free == 8, "each has been unpinned once"


async def test_pings_beyond_the_inbox_are_refused() -> None:
    async with open_bench(Limits(passes_waiting_max=3)) as bench:
        tenancy = bench.tenancy(1)
        bench.submit(tenancy)
        await wait_all_tasks_blocked()
        pings: list[Reply[str]] = [Reply() for _ in range(5)]
        for ping in pings:
            bench.loop.ping(ping)
        assert [ping.is_filled for ping in pings] == [False, False, False, True, True]
        with pytest.raises(PieError, match="passes_waiting_max"):
            pings[-1].take()
        bench.link.answer()
        await wait_all_tasks_blocked()
        bench.link.answer()
        await wait_all_tasks_blocked()
        assert [ping.take() for ping in pings[:3]] == ["pong"] * 3


async def test_a_page_is_a_source_until_its_copy_has_settled() -> None:
    async with open_bench() as bench:
        one = bench.tenancy(1)
        source, target = one.resolve(bench.pool.grant(one, 2), "page")
        forward = attrs.evolve(
            draft_of(1, pages=(target,)),
            owner=one.owner,
            copies=((PageId(source), PageId(target)),),
            pins=(source, target),
            reply=Reply(),
        )
        bench.loop.track(forward)
        bench.loop.submit_nowait(forward)
        assert bench.loop.passes.pins.is_source(source)
        await wait_all_tasks_blocked()
        bench.link.answer()
        await wait_all_tasks_blocked()
        assert not bench.loop.passes.pins.is_source(source)
        assert forward.reply.is_filled
