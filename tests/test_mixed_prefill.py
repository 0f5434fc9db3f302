"""Long prefills and decodes share the worker: nobody waits for long, and everybody gets on."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from pie_trio.config import Batching, Limits
from pie_trio.services.batch_counts import BatchCounts
from pie_trio.services.batch_policy import Plan, WaitingPass, next_batch
from pie_trio.testing.inline_worker import WorkerScript
from tests.test_batch_policy import forward
from tests.world import open_world

BUDGET = 256


def a_prefill(rows: int, ordinal: int = 0) -> WaitingPass:
    last = (rows - 1) % 16 + 1
    pages = tuple(range(10_000 * (ordinal + 1), 10_000 * (ordinal + 1) + -(-rows // 16)))
    return WaitingPass(forward(rows, pages=pages, last=last, owner=1000 + ordinal), ordinal, ())


def decodes(step: int, count: int, now: float) -> list[WaitingPass]:
    return [
        WaitingPass(forward(1, pages=(n,), owner=n, at=now), 1 + step * count + n, ())
        for n in range(count)
    ]


def carry_out(plan: Plan) -> None:
    for chunk in plan.chunks:
        chunk.waiting.rows_done = chunk.end


@pytest.mark.parametrize("count", [1, 32, 200])
def test_no_decode_waits_for_a_prefill_that_has_waited_longer(count: int) -> None:
    """Waiting lifts a pass above others; it must not hand a whole step to a long one."""
    prefill, steps = a_prefill(2048), 0
    while not prefill.has_left:
        now = 0.5 * steps
        waiting = [prefill, *decodes(steps, count, now)]
        plan = next_batch(waiting, Batching(), Limits(), BUDGET, now)
        before = prefill.rows_done
        carry_out(plan)
        steps += 1
        if count <= BUDGET * 3 // 4:
            assert all(item.has_left for item in waiting[1:]), "each decode is in the next batch"
        assert prefill.rows_done - before >= min(2048 - before, BUDGET // 4), (
            "and it gets its share"
        )
    assert steps <= -(-2048 // (BUDGET // 4))


def test_what_the_short_ones_do_not_need_is_the_long_ones() -> None:
    prefill = a_prefill(2048)
    plan = next_batch([prefill, *decodes(0, 32, 0.0)], Batching(), Limits(), BUDGET, 0.0)
    assert sum(chunk.end - chunk.first for chunk in plan.chunks) == BUDGET


def test_a_batch_takes_as_many_rows_as_a_step_may_last() -> None:
    counts, limits = BatchCounts(), Limits(step_seconds_max=0.5, batch_tokens_min=64)
    assert counts.budget(2048, limits) == 512, "nothing is known yet"
    counts.note(32, 32, 0.1)
    assert counts.budget(2048, limits) == 512, "a short batch tells nothing of a row"
    counts.note(1, 512, 1.024)
    assert counts.budget(2048, limits) == 250
    counts.note(1, 250, 0.0)
    assert counts.budget(2048, limits) == 500, "the newest time counts half"
    assert counts.budget(16, limits) == 16


async def test_a_decode_waits_behind_a_long_prompt_for_one_step_at_most(tmp_path: Path) -> None:
    """Real guests: while one reads a long prompt, the other gets a token from every step."""
    script = WorkerScript(row_seconds=0.0004)
    limits = Limits(step_seconds_max=0.04, batch_tokens_unmeasured=64, batch_tokens_min=64)
    async with (
        open_world(tmp_path, script=script, limits=limits) as world,
        trio.open_nursery() as n,
    ):
        n.start_soon(world.run, "text-completion", "--prompt", "short", "--max-tokens", "2000")
        while script.steps < 4:  # noqa: ASYNC110
            await trio.sleep(0.001)
        first = len(script.batches)
        end = await world.run("text-completion", "--prompt", "long " * 300, "--max-tokens", "1")
        assert end.error is None, end.error
        n.cancel_scope.cancel()
        shapes = [[len(request.tokens) for request in batch.requests] for batch in script.batches]
        chunks = [shape for shape in shapes[first:] if max(shape, default=0) > 1]
        assert len(chunks) > 10, "the prompt was read in chunks"
        assert all(sum(shape) <= 100 + 16 for shape in chunks), "no step lasts longer than it may"
        assert sum(1 in shape for shape in chunks) >= len(chunks) - 1
