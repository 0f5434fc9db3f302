"""What a worker tells of several steps while it goes on: who may use it, and what stays pinned.

Real queues and a real loop over an inline worker: a chunk is there for its guest at once, but pages
come back, and steps end, only when the worker has stopped.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from pie_trio.config import Limits
from pie_trio.decode import Decode, FinishReason
from pie_trio.errors import GuestFault, PassFailed
from pie_trio.testing.inline_worker import WorkerScript
from tests.scripted import KV, Scripted, open_scripted
from tests.test_decode_streams import TEXT, ended, start
from tests.world import open_world

CHUNKS_OF_FOUR = Limits(decode_chunk_tokens=4)


async def stream_under_way(one: Scripted, script: WorkerScript) -> Decode:
    """One that its worker carries on, and of which it has told a part."""
    decode = await start(one, await one.queue.allocate(KV, 3), TEXT)
    while len(decode.tokens) <= 5:  # noqa: ASYNC110
        await trio.sleep(0.001)
    (running,) = [batch.multi_step for batch in script.batches[-1:]]
    assert running is not None
    assert len(decode.tokens) - 1 < running.steps
    return decode


async def test_a_chunk_is_read_while_the_worker_goes_on(tmp_path: Path) -> None:
    script = WorkerScript(step_seconds=0.005)
    async with (
        open_world(tmp_path, script=script, limits=CHUNKS_OF_FOUR) as world,
        open_scripted(world, 1) as one,
    ):
        decode = await stream_under_way(one, script)
        batches, told = len(script.batches), list(decode.tokens)
        text = TEXT + told[:-1]
        pages = list(range(-(-len(text) // 16)))
        assert decode.read(64) == told
        assert await one.next_token(pages, text[-1:], len(text)) == told[-1]
        assert len(script.batches) > batches
        assert (await ended(decode)).reason is FinishReason.LENGTH


@pytest.mark.parametrize("way", ["stops", "dies"])
async def test_pages_stay_pinned_until_the_worker_has_stopped(way: str, tmp_path: Path) -> None:
    script = WorkerScript(step_seconds=0.005, halts_unheard=100)
    async with (
        open_world(tmp_path, script=script, limits=CHUNKS_OF_FOUR) as world,
        open_scripted(world, 1) as one,
    ):
        decode = await stream_under_way(one, script)
        generation = world.model.generation
        assert generation is not None
        passes, pool = generation.loop.passes, generation.manager.pools[KV]
        pinned = set(next(iter(passes.in_flight)).pins)
        if way == "stops":
            decode.stop()
            while decode.reason is None:  # noqa: ASYNC110
                await trio.sleep(0.001)
            assert decode.reason is FinishReason.CANCELLED
        else:
            generation.loop.drop_owner(one.queue.model.scope.owner)
        steps = script.steps
        await trio.sleep(0.03)  # the worker has not heard of it
        assert script.steps > steps
        assert passes.in_flight
        assert pinned <= pool._pins.keys()
        script.halts_unheard = 0
        while passes.in_flight:  # noqa: ASYNC110
            await trio.sleep(0.001)
        assert pool._pins.keys().isdisjoint(pinned)
        assert script.steps < 39


async def test_who_was_not_heard_is_heard_with_the_next_part(tmp_path: Path) -> None:
    script = WorkerScript(step_seconds=0.005)
    async with (
        open_world(tmp_path, script=script, limits=CHUNKS_OF_FOUR) as world,
        open_scripted(world, 2) as other,
        open_scripted(world, 1) as one,
    ):
        await stream_under_way(one, script)
        script.halts_unheard, steps = 1, script.steps
        pages = await other.queue.allocate(KV, 1)
        await other.next_token(pages, TEXT, len(TEXT))
        assert steps + 2 <= script.steps <= steps + 7


async def test_behind_a_disturbance_a_worker_goes_on_for_one_chunk(tmp_path: Path) -> None:
    script = WorkerScript(step_seconds=0.005)
    async with (
        open_world(tmp_path, script=script, limits=CHUNKS_OF_FOUR) as world,
        open_scripted(world, 2) as other,
        open_scripted(world, 1) as one,
    ):
        decode = await stream_under_way(one, script)
        begun = len(script.batches)
        await (await other.queue.debug_query("ping")).answer()
        await ended(decode)
        more = [batch.multi_step for batch in script.batches[begun:] if batch.multi_step]
        first, then = more[:2]
        assert first.steps == 4 < then.steps


async def test_a_step_that_fails_behind_a_part_takes_nothing_back(tmp_path: Path) -> None:
    script = WorkerScript(fails_at_step=6)
    async with (
        open_world(tmp_path, script=script, limits=CHUNKS_OF_FOUR) as world,
        open_scripted(world, 1) as one,
    ):
        pages = await one.queue.allocate(KV, 3)
        decode = await ended(await start(one, pages, TEXT))
        assert isinstance(decode.failure, PassFailed)
        assert len(decode.tokens) == 5
        text = TEXT + decode.tokens[:-1]
        assert await one.next_token(pages[:1], text[-1:], len(text)) == decode.tokens[-1]
        with pytest.raises(GuestFault, match="never written"):
            await one.next_token(pages[:1], [7], len(text) + 2)
