"""Nobody reads what the last owner of a page left in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pie_trio.errors import GuestFault, PassFailed
from pie_trio.messages import PageId
from pie_trio.services.slot_marks import SlotMarks, first_read, written_ranges
from tests.scripted import KV, open_scripted
from tests.test_forgery import _world_with
from tests.world import open_world

SECRET = [ord(letter) for letter in "a secret of mine"]


async def test_a_recycled_page_cannot_be_read_before_it_is_written(tmp_path: Path) -> None:
    async with open_world(tmp_path, pages=1) as world:
        async with open_scripted(world, 1, "one") as victim:
            pages = await victim.queue.allocate(KV, 1)
            await (await victim.submit(pages, SECRET, 16)).answer()
        async with open_scripted(world, 2, "two") as thief:
            pages = await thief.queue.allocate(KV, 1)
            with pytest.raises(GuestFault, match="slot 0 of KV page 0 is read and was never"):
                await thief.submit(pages, [65], 16)
            await (await thief.submit(pages, [65, 66], 2)).answer()
            with pytest.raises(GuestFault, match="slot 2 of KV page 0"):
                await thief.submit(pages, [67], 4)
            await (await thief.submit(pages, [67], 3)).answer()


async def test_a_gap_may_be_skipped_by_a_mask_and_only_so(tmp_path: Path) -> None:
    """As when prompt modules are cached apart and laid one after the other."""
    async with open_world(tmp_path) as world, open_scripted(world, 1) as guest:
        pages = await guest.queue.allocate(KV, 2)
        await guest.submit(pages, [65, 66, 67], 3)
        with pytest.raises(GuestFault, match="slot 3"):
            await guest.submit(pages, [68], 17, mask=((0, 4, 16, 17),))
        reply = await guest.submit(pages, [68], 17, mask=((0, 3, 16, 17),))
        await reply.answer()


async def test_a_failed_pass_has_written_nothing(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, open_scripted(world, 1) as guest:
        pages = await guest.queue.allocate(KV, 1)
        reply = await guest.submit(pages, [65, 10**6], 2)
        with pytest.raises(PassFailed):
            await reply.answer()
        with pytest.raises(GuestFault, match="never written"):
            await guest.submit(pages, [66], 3)


async def test_a_copied_page_has_what_its_source_has(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, open_scripted(world, 1) as guest:
        pages = await guest.queue.allocate(KV, 1)
        await guest.submit(pages, [65, 66], 2)
        await guest.queue.export(KV, pages, "shared")
        await (await guest.submit(pages, [67], 3)).answer()  # on a copy
        with pytest.raises(GuestFault, match="slot 3"):
            await guest.submit(pages, [68], 5)
        await guest.queue.release_exported(KV, "shared")


async def test_an_embedding_cannot_be_read_before_it_is_written(tmp_path: Path) -> None:
    async with _world_with(1, tmp_path) as (forger,):
        with pytest.raises(GuestFault, match="embedding 0 is read and was never written"):
            await forger.execute([forger.pages[1]], forger.embeddings[0])
        await forger.write_embedding(forger.embeddings[0])
        assert await forger.execute([forger.pages[1]], forger.embeddings[0])


def test_gaps_are_the_slots_that_nobody_wrote() -> None:
    marks = SlotMarks()
    marks.set(PageId(5), range(2, 4))
    marks.set(PageId(6), range(16))
    marks.unset(PageId(6), range(4, 5))
    assert marks.gaps([PageId(5), PageId(6)], 16, 32) == [(0, 2), (4, 16), (20, 21)]
    assert marks.gaps([PageId(6), PageId(5)], 16, 4) == []


def test_a_row_that_touches_a_gap_is_found_at_its_first_slot() -> None:
    gaps = [(4, 6), (10, 12)]
    assert first_read(gaps, (0, 4, 6, 10)) is None
    assert first_read(gaps, (0, 5)) == 4
    assert first_read(gaps, (6, 9, 11, 14)) == 11


def test_the_rows_of_a_pass_take_the_last_slots_of_its_context() -> None:
    assert written_ranges(3, 16, 2, 20) == {0: range(14, 16), 1: range(16), 2: range(2)}
    assert written_ranges(1, 16, 5, 5) == {0: range(5)}
