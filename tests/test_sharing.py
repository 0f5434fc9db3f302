"""Exports, imports, copy on write: the pretend worker's tokens show every byte of difference."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from pie_trio.errors import GuestFault, WorkerLost
from pie_trio.testing.inline_worker import WorkerScript
from tests.scripted import KV, open_scripted
from tests.world import open_world

TEXT = [70, 71, 72, 73, 74]


async def test_writing_an_imported_page_copies_it_first(tmp_path: Path) -> None:
    async with open_world(tmp_path, pages=16) as world, open_scripted(world, 1) as exporter:
        pages = await exporter.queue.allocate(KV, 1)
        await exporter.submit(pages, TEXT, 5, wants_token=False)
        await exporter.queue.export(KV, pages, "prefix")
        expected = [await exporter.next_of([*TEXT, word]) for word in (80, 81, 82)]
        async with open_scripted(world, 2) as one, open_scripted(world, 3) as two:
            mine = await one.queue.import_exported(KV, "prefix")
            yours = await two.queue.import_exported(KV, "prefix")
            assert await one.next_token(mine, [80], 6) == expected[0]
            assert await two.next_token(yours, [81], 6) == expected[1]
            assert await exporter.next_token(pages, [82], 6) == expected[2]
            # Each goes on from what it wrote itself.
            again = await one.next_of([*TEXT, 80, 90])
            assert await one.next_token(mine, [90], 7) == again
        async with open_scripted(world, 4) as late:
            fresh = await late.queue.import_exported(KV, "prefix")
            assert await late.next_token(fresh, [80], 6) == expected[0]
            await late.queue.release_exported(KV, "prefix")


async def test_reading_a_shared_page_copies_nothing(tmp_path: Path) -> None:
    async with open_world(tmp_path, pages=16) as world, open_scripted(world, 1) as exporter:
        text = list(range(60, 76))
        pages = await exporter.queue.allocate(KV, 1)
        await exporter.submit(pages, text, 16, wants_token=False)
        await exporter.queue.export(KV, pages, "full")
        async with open_scripted(world, 2) as importer:
            shared = await importer.queue.import_exported(KV, "full")
            own = await importer.queue.allocate(KV, 1)
            token = await importer.next_token([*shared, *own], [99], 17)
            assert token == await importer.next_of([*text, 99])
        assert all(not batch.copies for batch in world.script.batches)
        await exporter.queue.release_exported(KV, "full")


async def test_releasing_pulls_nothing_from_under_an_importer(tmp_path: Path) -> None:
    async with open_world(tmp_path, pages=4) as world, open_scripted(world, 2) as importer:
        expected = await importer.next_of([*TEXT, 80])
        async with open_scripted(world, 1) as exporter:
            pages = await exporter.queue.allocate(KV, 1)
            await exporter.submit(pages, TEXT, 5, wants_token=False)
            await exporter.queue.export(KV, pages, "prefix")
        held = await importer.queue.import_exported(KV, "prefix")
        await importer.queue.release_exported(KV, "prefix")
        async with open_scripted(world, 3) as greedy:
            others = await greedy.queue.allocate(KV, 3)
            for page in others:
                await greedy.next_token([page], [33] * 16, 16)
        assert await importer.next_token(held, [80], 6) == expected


async def test_an_export_is_seen_only_after_what_was_written_before_it(tmp_path: Path) -> None:
    script = WorkerScript(step_seconds=0.05)
    async with (
        open_world(tmp_path, script=script) as world,
        open_scripted(world, 1) as exporter,
        open_scripted(world, 2) as importer,
    ):
        pages = await exporter.queue.allocate(KV, 1)
        reply = await exporter.submit(pages, TEXT, 5, wants_token=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(exporter.queue.export, KV, pages, "prefix")
            await trio.sleep(0.01)
            assert not reply.is_filled
            assert await importer.queue.all_exported(KV) == []
        assert reply.is_filled
        assert await importer.queue.all_exported(KV) == [("prefix", 1)]
        await importer.queue.release_exported(KV, "prefix")


async def test_pages_that_another_queue_still_writes_cannot_be_exported(tmp_path: Path) -> None:
    script = WorkerScript(step_seconds=0.05)
    async with open_world(tmp_path, script=script) as world, open_scripted(world, 1) as guest:
        pages = await guest.queue.allocate(KV, 1)
        await guest.submit(pages, TEXT, 5, queue=guest.new_queue())
        with pytest.raises(GuestFault, match="another queue still writes"):
            await guest.queue.export(KV, pages, "too early")


async def test_tenants_see_nothing_of_each_other(tmp_path: Path) -> None:
    async with (
        open_world(tmp_path) as world,
        open_scripted(world, 1, "one") as one,
        open_scripted(world, 2, "two") as two,
    ):
        pages = await one.queue.allocate(KV, 1)
        await one.queue.export(KV, pages, "same name")
        assert await two.queue.all_exported(KV) == []
        with pytest.raises(GuestFault, match="no export named"):
            await two.queue.import_exported(KV, "same name")
        with pytest.raises(GuestFault, match="no export named"):
            await two.queue.release_exported(KV, "same name")
        own = await two.queue.allocate(KV, 1)
        await two.queue.export(KV, own, "same name")
        for guest in (one, two):
            await guest.queue.release_exported(KV, "same name")


async def test_exports_of_a_lost_generation_fail_by_name(tmp_path: Path) -> None:
    async with (
        open_world(tmp_path) as world,
        open_scripted(world, 1) as exporter,
    ):
        pages = await exporter.queue.allocate(KV, 1)
        await exporter.submit(pages, TEXT, 5, wants_token=False)
        await exporter.queue.export(KV, pages, "prefix")
        world.links[-1].die()
        await trio.testing.wait_all_tasks_blocked()
        await world.model.wait_ready()
        async with open_scripted(world, 2) as importer:
            with pytest.raises(WorkerLost, match="'prefix' was lost with worker generation 1"):
                await importer.queue.import_exported(KV, "prefix")


async def test_an_embedding_written_by_one_pass_is_read_by_the_next(tmp_path: Path) -> None:
    from tests.test_forgery import _world_with

    async with _world_with(1, tmp_path) as (forger,):
        await forger.write_embedding(forger.embeddings[0])
        first = await forger.execute([forger.pages[1]], forger.embeddings[0])
        plain = await forger.execute([forger.pages[1]])
        assert first != plain
