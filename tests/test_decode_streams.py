"""Streams in the engine's real queues and leases, without a guest: ends, order, deaths, wakes."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import trio

from gpu_worker.wire import OutputRow, SamplerKind
from pie_trio.config import Limits
from pie_trio.decode import Decode, DecodeDraft, DecodeRules, FinishReason
from pie_trio.errors import GuestFault, WorkerLost
from pie_trio.messages import PageHandle, PassDraft
from pie_trio.services.pass_chunks import chosen_seed
from pie_trio.testing.inline_worker import WorkerScript
from tests.scripted import KV, PAGE_SIZE, Scripted, open_scripted
from tests.world import open_world

TEXT = [70, 71, 72, 73, 74]


@attrs.define(eq=False)
class Wakes:
    """When a guest would have been woken."""

    times: list[float] = attrs.field(factory=list)
    changed: trio.Event = attrs.field(factory=trio.Event)

    def wake(self) -> None:
        self.times.append(trio.current_time())
        self.changed.set()
        self.changed = trio.Event()


async def start(
    one: Scripted,
    pages: list[int],
    tokens: list[int],
    *,
    total: int | None = None,
    tokens_max: int = 40,
    temperature: float = 0.0,
    stop_tokens: tuple[int, ...] = (),
    sequences: tuple[tuple[int, ...], ...] = (),
    seed: int | None = None,
    wakes: Wakes | None = None,
    goes_on: bool = False,
) -> Decode:
    """A stream over these pages; what its first pass does not fill is there to grow into."""
    total = total or len(tokens)
    used = -(-total // PAGE_SIZE)
    draft = PassDraft(
        tokens=tuple(tokens),
        positions=tuple(range(total - len(tokens), total)),
        pages=tuple(map(PageHandle, pages[:used])),
        last_page_length=(total - 1) % PAGE_SIZE + 1,
        mask=None,
        outputs=(OutputRow(len(tokens) - 1, SamplerKind.MULTINOMIAL, temperature),),
        embed_outputs=(),
        seed=None if seed is None else chosen_seed(seed, total - len(tokens)),
    )
    rules = DecodeRules(frozenset(stop_tokens), sequences, tokens_max)
    reserve = tuple(map(PageHandle, pages[used:]))
    sequence = DecodeDraft(reserve, rules, (wakes or Wakes()).wake, goes_on=goes_on)
    return await one.queue.start(draft, sequence)


async def ended(decode: Decode) -> Decode:
    with trio.fail_after(5):
        while decode.reason is None:  # noqa: ASYNC110
            await trio.sleep(0.001)
    return decode


async def by_passes(one: Scripted, tokens: list[int], count: int) -> list[int]:
    pages = await one.queue.allocate(KV, -(-(len(tokens) + count) // PAGE_SIZE))
    found = [await one.next_token(pages, tokens, len(tokens))]
    while len(found) < count:
        found.append(await one.next_token(pages, found[-1:], len(tokens) + len(found)))
    await one.queue.deallocate(KV, pages)
    return found


async def test_a_stream_says_what_passes_say_across_pages(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, open_scripted(world, 1) as one:
        truth = await by_passes(one, TEXT, 40)
        pages = await one.queue.allocate(KV, 3)
        decode = await ended(await start(one, pages, TEXT, tokens_max=40))
        assert decode.tokens == truth
        assert decode.reason is FinishReason.LENGTH
        # What it wrote may be read on: the last token is still to be read.
        again = await one.next_token(pages, truth[-1:], len(TEXT) + 40)
        assert again == (await by_passes(one, TEXT, 41))[-1]


async def test_a_stream_ends_at_stop_tokens_and_sequences_and_where_its_pages_end(
    tmp_path: Path,
) -> None:
    async with open_world(tmp_path) as world, open_scripted(world, 1) as one:
        truth = await by_passes(one, TEXT, 40)
        pages = await one.queue.allocate(KV, 3)
        stop = next(token for token in truth[5:] if token not in truth[:5])
        place = truth.index(stop)
        at_token = await ended(await start(one, pages, TEXT, stop_tokens=(stop,)))
        assert (at_token.tokens, at_token.reason) == (truth[: place + 1], FinishReason.STOP)
        sequence = (truth[9], truth[10])
        at_sequence = await ended(await start(one, pages, TEXT, sequences=(sequence,)))
        assert (at_sequence.tokens, at_sequence.reason) == (truth[:11], FinishReason.STOP)
        at_end = await ended(await start(one, pages[:2], TEXT))
        assert (at_end.tokens, at_end.reason) == (truth[: 32 - 4], FinishReason.PAGES)


async def test_a_seed_gives_the_same_tokens_however_the_batches_and_the_prompt_are_cut(
    tmp_path: Path,
) -> None:
    async with open_world(tmp_path) as world, open_scripted(world, 1) as one:
        found = []
        for _ in range(2):
            pages = await one.queue.allocate(KV, 3)
            decode = await start(one, pages, TEXT, temperature=1.0, seed=7)
            async with open_scripted(world, 2) as other:
                await by_passes(other, [9], 7)
                found.append((await ended(decode)).tokens)
        pages = await one.queue.allocate(KV, 3)
        await one.submit(pages, TEXT[:3], 3, wants_token=False)
        cut = await start(one, pages, TEXT[3:], total=5, temperature=1.0, seed=7)
        assert found[0] == found[1] == (await ended(cut)).tokens
        other_seed = await start(one, pages, TEXT, temperature=1.0, seed=8)
        assert (await ended(other_seed)).tokens != found[0]


async def test_what_comes_later_in_its_queue_waits_until_a_stream_has_ended(
    tmp_path: Path,
) -> None:
    script = WorkerScript(step_seconds=0.001)
    async with open_world(tmp_path, script=script) as world, open_scripted(world, 1) as one:
        pages, own = await one.queue.allocate(KV, 3), await one.queue.allocate(KV, 1)
        decode = await start(one, pages, TEXT, tokens_max=20)
        later = await one.submit(own, TEXT, 5)
        barrier = await one.queue.synchronize()
        elsewhere = await one.submit(
            await one.queue.allocate(KV, 1), TEXT, 5, queue=one.new_queue()
        )
        await elsewhere.answer()
        assert decode.reason is None
        assert not later.is_filled
        await later.answer()
        assert len(decode.tokens) == 20
        assert await barrier.answer()


async def test_a_guest_is_woken_for_chunks_and_not_for_tokens(tmp_path: Path) -> None:
    limits = Limits(decode_chunk_tokens=8, decode_chunk_seconds=1000.0)
    async with open_world(tmp_path, limits=limits) as world, open_scripted(world, 1) as one:
        wakes = Wakes()
        decode = await start(one, await one.queue.allocate(KV, 3), TEXT, wakes=wakes)
        got: list[int] = []
        while decode.reason is None:
            await wakes.changed.wait()
            assert decode.is_ready
            got += decode.read(100)
            assert decode.reason is not None or not decode.is_ready
        assert got == decode.tokens
        assert len(wakes.times) <= 1 + 40 // 8


async def test_a_slow_model_wakes_its_guest_after_a_while(tmp_path: Path) -> None:
    limits = Limits(decode_chunk_tokens=1000, decode_chunk_seconds=0.02)
    script = WorkerScript(step_seconds=0.01)
    async with (
        open_world(tmp_path, limits=limits, script=script) as world,
        open_scripted(world, 1) as one,
    ):
        wakes = Wakes()
        pages = await one.queue.allocate(KV, 3)
        decode = await start(one, pages, TEXT, tokens_max=20, wakes=wakes)
        while decode.reason is None:
            await wakes.changed.wait()
            decode.read(100)
        gaps = [b - a for a, b in zip(wakes.times, wakes.times[1:-1], strict=False)]
        assert len(gaps) >= 3
        assert min(gaps) >= 0.02


async def test_a_stream_that_is_stopped_ends_with_the_step_under_way(tmp_path: Path) -> None:
    script = WorkerScript(step_seconds=0.002)
    async with open_world(tmp_path, script=script) as world, open_scripted(world, 1) as one:
        truth = await by_passes(one, TEXT, 40)
        decode = await start(one, await one.queue.allocate(KV, 3), TEXT)
        begun = script.steps
        while script.steps < begun + 5:  # noqa: ASYNC110
            await trio.sleep(0.001)
        executed = script.steps - begun
        decode.stop()
        await ended(decode)
        assert decode.reason is FinishReason.CANCELLED
        assert executed <= len(decode.tokens) <= executed + 1
        assert decode.tokens == truth[: len(decode.tokens)]


@pytest.mark.parametrize("keep", [0, 1, 9, 28, 40])
async def test_a_stream_is_cut_as_if_the_rest_had_never_been(keep: int, tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, open_scripted(world, 1) as one:
        pages = await one.queue.allocate(KV, 3)
        decode = await ended(await start(one, pages, TEXT))
        truth = list(decode.tokens)
        one.queue.truncate(decode, keep)
        assert decode.tokens == truth[:keep]
        slots = len(TEXT) + max(keep - 1, 0)
        if keep < 40:
            with pytest.raises(GuestFault, match="never written"):
                await one.submit(pages, [1], slots + 2)
        assert await one.next_token(pages, truth[max(keep - 1, 0) :][:1], slots + 1)


@pytest.mark.parametrize("after", [0, 1, 2, 5, 17])
async def test_a_stream_dies_with_its_owner_and_its_pages_are_back(
    after: int, tmp_path: Path
) -> None:
    script = WorkerScript(step_seconds=0.001)
    async with open_world(tmp_path, script=script, pages=8) as world:
        async with open_scripted(world, 1) as one:
            decode = await start(one, await one.queue.allocate(KV, 6), TEXT, tokens_max=80)
            while len(decode.tokens) < after:  # noqa: ASYNC110
                await trio.sleep(0.0005)
        assert world.books().owned == 0
        async with open_scripted(world, 2) as next_one:
            with trio.fail_after(1):
                await next_one.queue.allocate(KV, 8)
        assert decode.reason is FinishReason.FAILED


async def test_a_lost_worker_fails_a_stream(tmp_path: Path) -> None:
    script = WorkerScript(dies_at_step=30)
    limits = Limits(decode_chunk_tokens=8)
    async with (
        open_world(tmp_path, script=script, limits=limits, checks_books=False) as world,
        open_scripted(world, 1) as one,
    ):
        decode = await ended(await start(one, await one.queue.allocate(KV, 3), TEXT))
        assert decode.reason is FinishReason.FAILED
        assert isinstance(decode.failure, WorkerLost)
        carried_on = script.batches[1].multi_step
        assert carried_on is not None
        assert len(decode.tokens) == 1 + 3 * 8 < 1 + carried_on.steps


async def test_pages_to_grow_into_are_the_streams_own(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, open_scripted(world, 1) as one:
        pages = await one.queue.allocate(KV, 3)
        with pytest.raises(GuestFault, match="stands twice"):
            await start(one, [pages[0], pages[1], pages[1]], TEXT)
        await one.submit([pages[2]], [1] * 16, 16, wants_token=False)
        await one.queue.export(KV, [pages[2]], "seen by all")
        with pytest.raises(GuestFault, match="read-only"):
            await start(one, pages, TEXT)
        assert (await ended(await start(one, pages[:2], TEXT, tokens_max=3))).tokens
        await one.queue.release_exported(KV, "seen by all")


async def test_pages_that_a_stream_will_write_are_not_exported_by_another_queue(
    tmp_path: Path,
) -> None:
    script = WorkerScript(step_seconds=0.001)
    async with open_world(tmp_path, script=script) as world, open_scripted(world, 1) as one:
        pages = await one.queue.allocate(KV, 3)
        decode = await start(one, pages, TEXT)
        with pytest.raises(GuestFault, match="another queue still writes"):
            await one.new_queue().export(KV, pages[2:], "not yet")
        await ended(decode)


async def test_streams_and_passes_share_batches(tmp_path: Path) -> None:
    script = WorkerScript(step_seconds=0.002)
    async with open_world(tmp_path, script=script) as world, open_scripted(world, 1) as one:
        streams = [
            await start(world_queue, await world_queue.queue.allocate(KV, 3), TEXT)
            for world_queue in (one,)
        ]
        async with open_scripted(world, 2) as other:
            await by_passes(other, [9, 9], 10)
        for decode in streams:
            await ended(decode)
        assert 2 in world.batch_sizes()


# Copies of pages


async def test_the_first_slots_of_a_page_are_copied_and_no_others(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, open_scripted(world, 1) as one:
        source, target = await one.queue.allocate(KV, 2)
        await one.submit([source], TEXT, 5, wants_token=False)
        await one.queue.copy_page(source, target, 3)
        expected = await one.next_of([*TEXT[:3], 90])
        assert await one.next_token([target], [90], 4) == expected
        with pytest.raises(GuestFault, match="never written"):
            await one.submit([target], [90], 6)
        assert await one.next_token([source], [80], 6) == await one.next_of([*TEXT, 80])


async def test_a_page_is_not_copied_before_or_over_what_others_need(tmp_path: Path) -> None:
    script = WorkerScript(step_seconds=0.02)
    async with open_world(tmp_path, script=script) as world, open_scripted(world, 1) as one:
        source, target, shown = await one.queue.allocate(KV, 3)
        with pytest.raises(GuestFault, match="never written"):
            await one.queue.copy_page(source, target, 1)
        await one.submit([source], TEXT, 5, wants_token=False)
        with pytest.raises(GuestFault, match="another queue"):
            await one.new_queue().copy_page(source, target, 1)
        await one.submit([shown], TEXT, 5, wants_token=False)
        await one.queue.export(KV, [shown], "shown")
        with pytest.raises(GuestFault, match="read-only"):
            await one.queue.copy_page(source, shown, 1)
        await one.queue.release_exported(KV, "shown")


@pytest.mark.parametrize("step_seconds", [0.0, 0.01])
async def test_the_pages_of_a_copy_are_back_when_its_owner_dies(
    step_seconds: float, tmp_path: Path
) -> None:
    script = WorkerScript(step_seconds=step_seconds)
    async with open_world(tmp_path, script=script, pages=2) as world:
        async with open_scripted(world, 1) as one:
            source, target = await one.queue.allocate(KV, 2)
            await (await one.submit([source], TEXT, 5)).answer()
            await one.queue.copy_page(source, target, 3)
        assert world.books().owned == 0
        async with open_scripted(world, 2) as other:
            with trio.fail_after(1):
                await other.queue.allocate(KV, 2)
