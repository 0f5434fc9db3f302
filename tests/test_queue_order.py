"""Commands of a queue take effect in order; barriers mean completion; chunks change nothing."""

from __future__ import annotations

import random
from pathlib import Path

import trio

from pie_trio.config import Limits
from pie_trio.errors import PassFailed
from pie_trio.messages import Priority
from pie_trio.testing.inline_worker import WorkerScript
from tests.scripted import KV, open_scripted
from tests.world import open_world

SLOW = 0.04
TEXT = [70, 71, 72, 73, 74]


async def test_a_freed_page_stays_until_the_passes_before_it_have_settled(tmp_path: Path) -> None:
    async with (
        open_world(tmp_path, script=WorkerScript(step_seconds=SLOW)) as world,
        open_scripted(world, 1) as guest,
    ):
        pages = await guest.queue.allocate(KV, 1)
        reply = await guest.submit(pages, TEXT, 5)
        await guest.queue.deallocate(KV, pages)
        await trio.testing.wait_all_tasks_blocked()
        assert not reply.is_filled
        assert world.books().owned == 1
        await (await guest.queue.synchronize()).answer()
        assert reply.is_filled
        assert world.books().owned == 0


async def test_synchronize_is_filled_when_the_passes_before_it_have_completed(
    tmp_path: Path,
) -> None:
    async with (
        open_world(tmp_path, script=WorkerScript(step_seconds=SLOW)) as world,
        open_scripted(world, 1) as guest,
    ):
        pages = await guest.queue.allocate(KV, 1)
        passes = [await guest.submit(pages, [70 + n], n + 1) for n in range(3)]
        barrier = await guest.queue.synchronize()
        assert not barrier.is_filled
        assert await barrier.answer() is True
        assert all(reply.is_filled for reply in passes)


async def test_a_barrier_does_not_wait_for_what_comes_after_it(tmp_path: Path) -> None:
    async with (
        open_world(tmp_path, script=WorkerScript(step_seconds=SLOW)) as world,
        open_scripted(world, 1) as guest,
    ):
        pages = await guest.queue.allocate(KV, 1)
        before = await guest.submit(pages, [70], 1)
        barrier = await guest.queue.synchronize()
        after = await guest.submit(pages, [71], 2)
        assert await barrier.answer() is True
        assert (before.is_filled, after.is_filled) == (True, False)
        await after.answer()


async def test_synchronize_tells_of_a_failed_pass_once(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, open_scripted(world, 1) as guest:
        pages = await guest.queue.allocate(KV, 1)
        reply = await guest.submit(pages, [10**6], 1)  # beyond the vocabulary: the worker refuses
        await reply.wait()
        assert await (await guest.queue.synchronize()).answer() is False
        assert await (await guest.queue.synchronize()).answer() is True


async def test_a_failed_pass_without_outputs_ends_the_instance(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, open_scripted(world, 1) as guest:
        pages = await guest.queue.allocate(KV, 1)
        reply = await guest.submit(pages, [10**6], 1, wants_token=False)
        await reply.wait()
        assert [type(fault) for fault in guest.faults] == [PassFailed]


async def test_a_bad_pass_answers_for_itself_alone(tmp_path: Path) -> None:
    async with (
        open_world(tmp_path, script=WorkerScript(step_seconds=SLOW)) as world,
        open_scripted(world, 1) as bad,
        open_scripted(world, 2) as good,
    ):
        expected = await good.next_of(TEXT)
        bad_pages = await bad.queue.allocate(KV, 1)
        good_pages = await good.queue.allocate(KV, 1)
        failed = await bad.submit(bad_pages, [10**6], 1)
        fine = await good.submit(good_pages, TEXT, 5)
        assert (await fine.answer()).tokens == (expected,)
        await failed.wait()
        assert len(world.script.batches[-1].requests) == 2, "they shared the batch"


async def test_a_branch_never_runs_before_the_pages_it_shares_are_written(tmp_path: Path) -> None:
    """The parent's pass is urgent for nobody, its branch's is; the branch waits all the same."""
    script = WorkerScript(step_seconds=SLOW)
    limits = Limits(batch_tokens=16)
    async with (
        open_world(tmp_path, script=script, limits=limits) as world,
        open_scripted(world, 1) as guest,
    ):
        text = list(range(60, 76))
        expected = await guest.next_of([*text, 99])
        shared, own = await guest.queue.allocate(KV, 1), await guest.queue.allocate(KV, 1)
        guest.queue.priority = Priority.LOW
        branch = guest.new_queue()
        branch.priority = Priority.HIGH
        plug = await guest.queue.allocate(KV, 1)
        await guest.submit(plug, [65], 1)
        await guest.submit(shared, text, 16, wants_token=False)
        reply = await guest.submit([*shared, *own], [99], 17, queue=branch)
        assert (await reply.answer()).tokens == (expected,)


async def test_a_pass_cut_by_the_budget_gives_what_it_gives_whole(tmp_path: Path) -> None:
    text = [random.Random(3).randrange(32, 126) for _ in range(50)]
    tokens = []
    for budget in (7, 2048):
        limits = Limits(batch_tokens=budget)
        async with (
            open_world(tmp_path, limits=limits) as world,
            open_scripted(world, 1) as guest,
        ):
            pages = await guest.queue.allocate(KV, 4)
            replies = [
                await guest.submit(pages, text, 50, temperature=1.0),
                await guest.submit(pages, [90], 51, temperature=1.0),
            ]
            tokens.append([(await reply.answer()).tokens for reply in replies])
            rows = [sum(len(r.tokens) for r in b.requests) for b in world.script.batches]
            assert max(rows) <= budget
    assert tokens[0] == tokens[1]


async def test_a_seed_gives_the_same_tokens_whatever_shares_the_batch(tmp_path: Path) -> None:
    async def sampled(company: int) -> list[int]:
        async with (
            open_world(tmp_path, seed=5) as world,
            open_scripted(world, 1) as guest,
            trio.open_nursery() as nursery,
        ):

            async def disturb(number: int) -> None:
                async with open_scripted(world, number) as other:
                    for _ in range(20):
                        await other.next_of(TEXT)

            for number in range(2, 2 + company):
                nursery.start_soon(disturb, number)
            pages = await guest.queue.allocate(KV, 2)
            tokens = [70]
            for total in range(1, 20):
                reply = await guest.submit(pages, tokens[-1:], total, temperature=1.0)
                tokens += (await reply.answer()).tokens
        return tokens

    alone = await sampled(0)
    assert len(set(alone)) > 3
    assert await sampled(4) == alone


async def test_a_ping_goes_through_the_worker_in_its_turn(tmp_path: Path) -> None:
    async with (
        open_world(tmp_path, script=WorkerScript(step_seconds=SLOW)) as world,
        open_scripted(world, 1) as guest,
    ):
        pages = await guest.queue.allocate(KV, 1)
        reply = await guest.submit(pages, TEXT, 5)
        ping = await guest.queue.debug_query("ping")
        assert not ping.is_filled
        assert await ping.answer() == "pong"
        assert reply.is_filled
        assert world.script.batches[-1].requests == ()
