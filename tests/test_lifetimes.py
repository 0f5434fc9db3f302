"""Whole lives over the engine's real leases, queues and model loops: every order of events.

An inline worker and scripted guests; leaving each world checks its books.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pie_trio.config import Batching, BatchTrigger, Limits
from pie_trio.errors import BadProgram, OutOfPages, PassFailed, TooMany, WorkerLost
from pie_trio.events import ExportDropped, WorkerDied
from pie_trio.messages import Priority, ResourceKind
from pie_trio.testing.inline_worker import WorkerScript
from tests.scripted import KV, Scripted, open_scripted
from tests.world import open_world

EMBEDDING = ResourceKind.EMBEDDING
SLOW = 0.05
TEXT = [70, 71, 72, 73, 74]


async def export_text(guest: Scripted, name: str) -> list[int]:
    """A page with TEXT, exported; its handle stays the guest's."""
    pages = await guest.queue.allocate(KV, 1)
    await guest.submit(pages, TEXT, 5, wants_token=False)
    await guest.queue.export(KV, pages, name)
    return pages


# --- copy on write


async def test_the_source_of_a_copy_outlives_an_export_that_is_dropped_for_room(
    tmp_path: Path,
) -> None:
    """The writer's copy makes the export unused; a waiter would get its page before the copy."""
    script = WorkerScript(step_seconds=SLOW)
    async with (
        open_world(tmp_path, script=script, pages=6) as world,
        open_scripted(world, 1) as writer,
        open_scripted(world, 2) as waiter,
        trio.open_nursery() as nursery,
    ):
        expected = await writer.next_of([*TEXT, 80])
        pages = await export_text(writer, "prefix")
        others = await writer.queue.allocate(KV, 4)
        got: list[int] = []

        async def wait_for_pages() -> None:
            got.extend(await waiter.queue.allocate(KV, 2))

        plug = await writer.queue.allocate(KV, 1)
        nursery.start_soon(wait_for_pages)
        await wait_all_tasks_blocked()
        assert not got
        # Its room for the copy is what the writer gives back now; the waiter is younger.
        await writer.queue.deallocate(KV, plug)
        assert await writer.next_token(pages, [80], 6) == expected
        await writer.queue.deallocate(KV, others)
        await wait_all_tasks_blocked()
        assert len(got) == 2


async def test_the_source_of_a_copy_is_not_overwritten_by_who_is_left(tmp_path: Path) -> None:
    """The importer's copy waits behind a slow pass while the exporter, alone again, rewrites."""
    script = WorkerScript(step_seconds=SLOW)
    limits = Limits(batch_tokens=16)
    async with (
        open_world(tmp_path, script=script, limits=limits, pages=32) as world,
        open_scripted(world, 1) as exporter,
        open_scripted(world, 2) as importer,
    ):
        expected = await importer.next_of([*TEXT, 80])
        pages = await export_text(exporter, "prefix")
        mine = await importer.queue.import_exported(KV, "prefix")
        importer.queue.priority = Priority.LOW
        exporter.queue.priority = Priority.HIGH
        plug = await exporter.queue.allocate(KV, 1)
        await exporter.submit(plug, [65] * 16, 16)  # fills the next batch
        copied = await importer.submit(mine, [80], 6)
        await exporter.queue.release_exported(KV, "prefix")
        again = exporter.new_queue()
        again.priority = Priority.HIGH
        await exporter.submit(pages, [90] * 16, 16, queue=again)
        assert (await copied.answer()).tokens == (expected,)


async def test_two_handles_of_one_guest_on_one_page_do_not_write_into_each_other(
    tmp_path: Path,
) -> None:
    async with (
        open_world(tmp_path) as world,
        open_scripted(world, 1) as exporter,
        open_scripted(world, 2) as importer,
    ):
        expected = [await importer.next_of([*TEXT, word, 90]) for word in (81, 82)]
        await exporter.queue.deallocate(KV, await export_text(exporter, "prefix"))
        one = await importer.queue.import_exported(KV, "prefix")
        two = await importer.queue.import_exported(KV, "prefix")
        await importer.queue.release_exported(KV, "prefix")
        await importer.submit(one, [81], 6, wants_token=False)
        await importer.submit(two, [82], 6, wants_token=False)
        assert [await importer.next_token(pages, [90], 7) for pages in (one, two)] == expected


async def test_a_copy_is_made_once_however_its_pass_is_cut(tmp_path: Path) -> None:
    async with (
        open_world(tmp_path, limits=Limits(batch_tokens=4)) as world,
        open_scripted(world, 1) as exporter,
        open_scripted(world, 2) as importer,
    ):
        more = [80, 81, 82, 83, 84, 85, 86, 87]
        expected = await importer.next_of([*TEXT, *more])
        await export_text(exporter, "prefix")
        pages = await importer.queue.import_exported(KV, "prefix")
        assert await importer.next_token(pages, more, 13) == expected
        assert sum(len(batch.copies) for batch in world.script.batches) == 1
        await exporter.queue.release_exported(KV, "prefix")


async def test_a_source_that_nobody_holds_any_more_waits_for_its_copy(tmp_path: Path) -> None:
    script = WorkerScript(step_seconds=SLOW)
    async with (
        open_world(tmp_path, script=script) as world,
        open_scripted(world, 1) as exporter,
        open_scripted(world, 2) as importer,
    ):
        pages = await export_text(exporter, "prefix")
        mine = await importer.queue.import_exported(KV, "prefix")
        copied = await importer.submit(mine, [80], 6)
        await exporter.queue.release_exported(KV, "prefix")
        await exporter.queue.deallocate(KV, pages)
        await wait_all_tasks_blocked()
        assert not copied.is_filled
        assert (world.books().owned, world.books().pinned) == (1, 1)
        await copied.answer()
        assert world.books().pinned == 0


async def test_no_copy_is_made_of_a_page_whose_other_holders_left_meanwhile(tmp_path: Path) -> None:
    async with (
        open_world(tmp_path, pages=2) as world,
        open_scripted(world, 1) as exporter,
        open_scripted(world, 2) as importer,
        open_scripted(world, 3) as other,
        trio.open_nursery() as nursery,
    ):
        expected = await importer.next_of([*TEXT, 80])
        pages = await export_text(exporter, "prefix")
        mine = await importer.queue.import_exported(KV, "prefix")
        plug = await other.queue.allocate(KV, 1)
        tokens: list[int] = []

        async def write() -> None:
            tokens.append(await importer.next_token(mine, [80], 6))

        nursery.start_soon(write)
        await wait_all_tasks_blocked()
        await exporter.queue.release_exported(KV, "prefix")
        await exporter.queue.deallocate(KV, pages)
        await other.queue.deallocate(KV, plug)
        with trio.fail_after(5):
            while not tokens:  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert tokens == [expected]
        assert world.books().owned == 1, "the fresh page went back"
        assert all(not batch.copies for batch in world.script.batches)


# --- waiting for pages


async def test_who_waits_for_its_own_pages_to_come_back_is_not_refused(tmp_path: Path) -> None:
    """It gave them up in its queue, behind a pass that is not settled yet."""
    script = WorkerScript(step_seconds=SLOW)
    async with (
        open_world(tmp_path, script=script, pages=1) as world,
        open_scripted(world, 1) as guest,
    ):
        pages = await guest.queue.allocate(KV, 1)
        await guest.submit(pages, TEXT, 5)
        await guest.queue.deallocate(KV, pages)
        assert len(await guest.queue.allocate(KV, 1)) == 1


async def test_a_death_with_pages_and_embeddings_serves_who_waits_for_embeddings(
    tmp_path: Path,
) -> None:
    limits = Limits(embeddings=2)
    got: list[int] = []
    async with (
        open_world(tmp_path, limits=limits) as world,
        open_scripted(world, 2) as waiter,
        trio.open_nursery() as nursery,
    ):
        async with open_scripted(world, 1) as dying:
            await dying.queue.allocate(KV, 1)
            await dying.queue.allocate(EMBEDDING, 2)

            async def wait() -> None:
                got.extend(await waiter.queue.allocate(EMBEDDING, 2))

            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            assert not got
        await wait_all_tasks_blocked()
        assert len(got) == 2


async def test_exports_are_kept_when_pages_of_the_dead_are_on_their_way(tmp_path: Path) -> None:
    script = WorkerScript(step_seconds=SLOW)
    async with (
        open_world(tmp_path, script=script, pages=2) as world,
        open_scripted(world, 3) as waiter,
    ):
        async with open_scripted(world, 1) as exporter:
            await export_text(exporter, "kept")
        async with open_scripted(world, 2) as dying:
            pages = await dying.queue.allocate(KV, 1)
            await dying.submit(pages, TEXT, 5)
            await trio.sleep(SLOW / 2)
        assert world.books().pinned == 1
        assert len(await waiter.queue.allocate(KV, 1)) == 1
        assert not [event for event in world.events if isinstance(event, ExportDropped)]
        await waiter.queue.release_exported(KV, "kept")


async def test_a_wait_of_no_time_leaves_nothing_behind(tmp_path: Path) -> None:
    limits = Limits(page_wait_seconds=0.0)
    async with (
        open_world(tmp_path, limits=limits, pages=4) as world,
        open_scripted(world, 1) as one,
        open_scripted(world, 2) as two,
    ):
        pages = await one.queue.allocate(KV, 3)
        with pytest.raises(OutOfPages, match="page_wait_seconds"):
            await two.queue.allocate(KV, 2)
        await one.queue.deallocate(KV, pages)
        await wait_all_tasks_blocked()
        assert world.books().owned == 0, "nobody was granted what it does not know of"


# --- queues


async def test_synchronize_tells_of_a_failed_pass_though_other_commands_came_between(
    tmp_path: Path,
) -> None:
    async with open_world(tmp_path) as world, open_scripted(world, 1) as guest:
        pages = await guest.queue.allocate(KV, 2)
        reply = await guest.submit(pages[:1], [10**6], 1)
        await reply.wait()
        await guest.queue.deallocate(KV, pages[1:])
        assert await guest.queue.all_exported(KV) == []
        assert await (await guest.queue.synchronize()).answer() is False
        assert await (await guest.queue.synchronize()).answer() is True


async def test_a_flood_of_pings_starts_no_tasks(tmp_path: Path) -> None:
    script = WorkerScript(step_seconds=SLOW)
    async with open_world(tmp_path, script=script) as world, open_scripted(world, 1) as guest:
        first = await guest.queue.debug_query("ping")
        tasks = trio.lowlevel.current_statistics().tasks_living
        pings = [await guest.queue.debug_query("ping") for _ in range(200)]
        assert trio.lowlevel.current_statistics().tasks_living <= tasks + 1
        assert {await ping.answer() for ping in [first, *pings]} == {"pong"}


async def test_a_guest_that_submits_without_end_waits_for_its_own_passes(tmp_path: Path) -> None:
    """And nobody else waits for it: the bound is one of each instance."""
    limits = Limits(pass_values_waiting=20_000)
    eager = Batching(BatchTrigger.EAGER)
    async with (
        open_world(tmp_path, limits=limits, batching=eager) as world,
        open_scripted(world, 1) as hostile,
        open_scripted(world, 2) as other,
        trio.open_nursery() as nursery,
    ):
        most = 0

        async def submit_without_end() -> None:
            nonlocal most
            pages = await hostile.queue.allocate(KV, 1)
            replies = []
            for _ in range(200):
                replies.append(await hostile.submit(pages, [65], 1))
                most = max(most, sum(not reply.is_filled for reply in replies))

        nursery.start_soon(submit_without_end)
        await wait_all_tasks_blocked()
        assert await other.next_of(TEXT)
        with trio.fail_after(20):
            while nursery.child_tasks:  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert 1 < most <= 20


async def test_handles_on_imported_pages_are_bounded(tmp_path: Path) -> None:
    limits = Limits(page_handles_max=10)
    async with open_world(tmp_path, limits=limits) as world, open_scripted(world, 1) as guest:
        await export_text(guest, "prefix")
        for _ in range(9):
            await guest.queue.import_exported(KV, "prefix")
        with pytest.raises(TooMany, match="page_handles_max"):
            await guest.queue.import_exported(KV, "prefix")
        await guest.queue.release_exported(KV, "prefix")


async def test_an_embedding_is_not_taken_for_the_page_of_the_same_number(tmp_path: Path) -> None:
    script = WorkerScript(step_seconds=SLOW)
    async with open_world(tmp_path, script=script) as world, open_scripted(world, 1) as guest:
        pages = await guest.queue.allocate(KV, 1)
        embeddings = await guest.queue.allocate(EMBEDDING, 1)
        await guest.submit(pages, TEXT, 5, queue=guest.new_queue())
        await guest.queue.export(EMBEDDING, embeddings, "slot nought, too")
        await guest.queue.release_exported(EMBEDDING, "slot nought, too")


@pytest.mark.parametrize(
    "request_json", ["[" * 200_000, '{"messages": 5}', '{"messages": null}', "7"], ids=len
)
async def test_no_conversation_stops_the_engine(tmp_path: Path, request_json: str) -> None:
    async with open_world(tmp_path) as world, open_scripted(world, 1) as guest:
        reply = await guest.queue.debug_query(f"render-chat {request_json}")
        assert (await reply.answer()).startswith("error: ")


# --- chunks


async def test_an_owner_that_dies_between_two_chunks_leaves_nothing(tmp_path: Path) -> None:
    script = WorkerScript(step_seconds=SLOW)
    limits = Limits(batch_tokens=4)
    async with (
        open_world(tmp_path, script=script, limits=limits) as world,
        open_scripted(world, 2) as urgent,
    ):
        generation = world.model.generation
        assert generation is not None
        urgent.queue.priority = Priority.HIGH
        mine = await urgent.queue.allocate(KV, 1)
        async with open_scripted(world, 1) as dying:
            pages = await dying.queue.allocate(KV, 1)
            await dying.submit(pages, [70 + n for n in range(16)], 16)
            await trio.sleep(SLOW / 2)  # its first chunk is being executed
            replies = [await urgent.submit(mine, [65] * 4, 4 * n + 4) for n in range(3)]
            await replies[0].wait()
            assert world.books().owned == 2
        assert world.books().owned == 1
        assert world.books().pinned == 0, "no chunk of it was in flight"
        for reply in replies:
            await reply.answer()
        assert not generation.loop.passes.collected


async def test_a_pass_that_fails_in_the_middle_of_its_chunks_fails_once_and_whole(
    tmp_path: Path,
) -> None:
    limits = Limits(batch_tokens=4)
    async with open_world(tmp_path, limits=limits) as world, open_scripted(world, 1) as guest:
        pages = await guest.queue.allocate(KV, 1)
        bad = await guest.submit(pages, [*TEXT, 10**6, *TEXT, *TEXT], 16)
        with pytest.raises(PassFailed):
            await bad.answer()
        batches = len(world.script.batches)
        expected = await guest.next_of(TEXT)
        assert expected
        rows = [len(r.tokens) for b in world.script.batches[batches:] for r in b.requests]
        assert sum(rows) == len(TEXT), "nothing of the failed pass was executed any more"
        generation = world.model.generation
        assert generation is not None
        assert not generation.loop.passes.collected


# --- a lost worker


async def test_a_generation_that_is_lost_pins_nothing_even_for_the_dead(tmp_path: Path) -> None:
    script = WorkerScript(step_seconds=SLOW)
    async with open_world(tmp_path, script=script) as world:
        generation = world.model.generation
        assert generation is not None
        async with open_scripted(world, 1) as dying:
            pages = await dying.queue.allocate(KV, 2)
            await dying.submit(pages, list(range(60, 80)), 20)
            await trio.sleep(SLOW / 2)
        books = generation.manager.pools[KV].books()
        assert books.pinned == 2
        world.links[-1].die()
        await world.model.wait_ready()
        await wait_all_tasks_blocked()
        books = generation.manager.pools[KV].books()
        assert (books.free, books.pinned) == (books.capacity, 0)


async def test_who_waits_for_pages_of_a_lost_generation_is_given_none(tmp_path: Path) -> None:
    """Its end sets pages free; they must not be granted any more."""
    script = WorkerScript(step_seconds=SLOW)
    refusals: list[Exception] = []
    async with (
        open_world(tmp_path, script=script, pages=2) as world,
        open_scripted(world, 2) as waiter,
        trio.open_nursery() as nursery,
    ):

        async def wait() -> None:
            try:
                await waiter.queue.allocate(KV, 1)
            except WorkerLost as lost:
                refusals.append(lost)

        async with open_scripted(world, 1) as dying:
            pages = await dying.queue.allocate(KV, 2)
            await dying.submit(pages, list(range(60, 80)), 20)
            await trio.sleep(SLOW / 2)
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
        assert not refusals
        world.links[-1].die()
        await wait_all_tasks_blocked()
        assert len(refusals) == 1
        assert [type(fault) for fault in waiter.faults] == [WorkerLost]


async def test_a_queue_that_waits_at_a_fence_is_released_by_a_lost_worker(tmp_path: Path) -> None:
    script = WorkerScript(step_seconds=SLOW)
    async with open_world(tmp_path, script=script) as world, open_scripted(world, 1) as guest:
        pages = await guest.queue.allocate(KV, 1)
        await guest.submit(pages, TEXT, 5)
        barrier = await guest.queue.synchronize()
        world.links[-1].die()
        assert await barrier.answer() is False


async def test_an_instance_waits_for_a_worker_that_restarts(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    limits = Limits(worker_restart_backoff_seconds=5.0)
    async with open_world(tmp_path, limits=limits) as world:
        world.links[-1].die()
        await wait_all_tasks_blocked()
        began = trio.current_time()
        async with open_scripted(world, 1) as guest:
            assert await guest.next_of(TEXT)
        assert trio.current_time() - began >= 5.0


async def test_an_idle_worker_that_dies_now_and_then_is_never_given_up(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    limits = Limits(worker_restarts_max=2)
    async with open_world(tmp_path, limits=limits) as world:
        for deaths in range(1, 8):
            await trio.sleep(limits.worker_steady_seconds + 1)
            world.links[-1].die()
            await wait_all_tasks_blocked()
            assert len([e for e in world.events if isinstance(e, WorkerDied)]) == deaths
            await world.model.wait_ready()


async def test_a_worker_that_dies_at_once_again_and_again_is_given_up(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """With growing pauses; who comes later is told, and each time with an error of its own."""
    limits = Limits(worker_restarts_max=3, worker_restart_backoff_seconds=1.0)
    async with open_world(tmp_path, limits=limits, checks_books=False) as world:
        deaths = []
        for _ in range(4):
            await world.model.wait_ready()
            world.links[-1].die()
            await wait_all_tasks_blocked()
            deaths.append(trio.current_time())
        pauses = [round(b - a) for a, b in pairwise(deaths)]
        assert pauses == [1, 2, 4]
        errors = []
        for number in (1, 2):
            async with open_scripted(world, number) as guest:
                with pytest.raises(WorkerLost, match="given up after 3 restarts") as caught:
                    await guest.queue.allocate(KV, 1)
            errors.append(caught.value)
        assert errors[0] is not errors[1]


async def test_a_worker_that_worked_before_it_died_starts_a_new_count(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    limits = Limits(worker_restarts_max=1, worker_restart_backoff_seconds=1.0)
    async with open_world(tmp_path, limits=limits) as world:
        for number in range(1, 6):
            async with open_scripted(world, number) as guest:
                await guest.next_of(TEXT)
            world.links[-1].die()
            await wait_all_tasks_blocked()


# --- programs


async def test_a_program_whose_file_is_gone_is_refused(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        record = world.engine.programs.find("text-completion")
        assert record is not None
        gone = attrs.evolve(record, artifact=tmp_path / "gone.wasm", artifact_hash="0" * 64)
        for language in ("wasm", "python"):
            with pytest.raises(BadProgram, match=r"gone\.wasm"):
                await world.engine.launch(attrs.evolve(gone, language=language), (), user="tester")


# --- what is left of the dead


async def test_errors_that_several_are_told_gather_no_frames(tmp_path: Path) -> None:
    """Else the first guest that was refused lives, with all its memory, as long as the last."""
    script = WorkerScript(step_seconds=SLOW)
    async with open_world(tmp_path, script=script) as world:
        refused = []
        async with open_scripted(world, 1) as guest:
            pages = await guest.queue.allocate(KV, 1)
            replies = [await guest.submit(pages, [65], 1) for _ in range(3)]
            world.links[-1].die()
            for reply in [*replies, *replies]:
                with pytest.raises(WorkerLost) as caught:
                    await reply.answer()
                refused.append(caught.value)
        assert len({id(error) for error in refused}) == len(refused)
        (lost,) = guest.faults
        assert lost.__traceback__ is None


async def test_a_finished_instance_keeps_no_frame_of_its_guest(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        instance = await world.launch("text-completion", "--model", "there is no such model")
        ended = await instance.ended.answer()
        assert ended.error_kind == "GuestFault"
        assert instance._cause is None


async def test_the_first_cause_of_an_end_is_the_one_that_is_told(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        instance = await world.launch("text-completion", "--prompt", "hello")
        instance.terminate()
        instance.end_with(WorkerLost("too late"))
        ended = await instance.ended.answer()
        assert (ended.error, ended.error_kind) == ("Signal", "Terminated")
        instance.end_with(WorkerLost("far too late"))
        assert await instance.ended.answer() == ended
