"""Which passes make a batch: budget, order, dependencies, triggers, priorities."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_worker import wire
from gpu_worker.mixing import mix
from pie_trio.config import Batching, BatchTrigger, Limits
from pie_trio.mailbox import Reply
from pie_trio.messages import ForwardPass, InstanceId, Owner, PageId, Priority
from pie_trio.services.batch_policy import Chunk, Plan, WaitingPass, next_batch
from pie_trio.services.pass_chunks import Collected, pass_seed, request_for, seed_from_row
from pie_trio.services.pass_order import PassOrder

ADAPTIVE = Batching()
LIMITS = Limits()


def forward(
    rows: int = 1,
    *,
    pages: tuple[int, ...] = (0,),
    last: int | None = None,
    owner: int = 1,
    queue: int = 0,
    at: float = 0.0,
    priority: Priority = Priority.NORMAL,
    **more: Any,
) -> ForwardPass:
    size = 16
    if last is None:
        last = (rows - 1) % size + 1
    return ForwardPass(
        owner=Owner(owner, InstanceId(f"i{owner}"), "local", "p@1.0.0"),
        queue=queue,
        number=0,
        priority=priority,
        tokens=tuple(range(rows)),
        positions=tuple(range(rows)),
        pages=tuple(PageId(page) for page in pages),
        page_size=size,
        last_page_length=last,
        mask=more.pop("mask", None),
        outputs=more.pop("outputs", ()),
        embed_outputs=more.pop("embed_outputs", ()),
        copies=(),
        pins=(),
        embed_pins=(),
        seed=more.pop("seed", 7),
        submitted_at=at,
        reply=Reply(),
    )


def waiting(*passes: ForwardPass) -> list[WaitingPass]:
    return [WaitingPass(item, arrival, ()) for arrival, item in enumerate(passes)]


def arrivals(plan: Plan) -> list[int]:
    return [chunk.waiting.ordinal for chunk in plan.chunks]


def test_whatever_waits_is_the_next_batch() -> None:
    passes = waiting(*(forward(pages=(n,)) for n in range(5)))
    assert arrivals(next_batch(passes, ADAPTIVE, LIMITS, 100, 0.0)) == [0, 1, 2, 3, 4]


def test_the_token_budget_is_kept_exactly_by_cutting_a_pass() -> None:
    passes = waiting(forward(10, pages=(0,)), forward(10, pages=(1,)))
    plan = next_batch(passes, ADAPTIVE, LIMITS, 16, 0.0)
    assert [(c.first, c.end) for c in plan.chunks] == [(0, 10), (0, 6)]


def test_a_batch_has_a_bound_of_numbers_that_one_pass_alone_may_exceed() -> None:
    """Else many distributions, or many masks, make a message that no peer takes."""
    head = wire.OutputRow(0, wire.SamplerKind.DISTRIBUTION, 1.0, top_k=20)
    passes = waiting(
        forward(pages=(0,), outputs=(head,) * 3),
        forward(pages=(1,), mask=((0, 1) * 50,)),
        forward(pages=(2,)),
    )
    limits = Limits(batch_values=100)
    assert arrivals(next_batch(passes, ADAPTIVE, limits, 100, 0.0)) == [0]
    assert arrivals(next_batch(passes[1:], ADAPTIVE, limits, 100, 0.0)) == [1]
    limits = Limits(batch_values=124 + 101)
    assert arrivals(next_batch(passes, ADAPTIVE, limits, 100, 0.0)) == [0, 1]
    assert arrivals(next_batch(passes, ADAPTIVE, Limits(), 100, 0.0)) == [0, 1, 2]


def test_a_pass_larger_than_the_budget_is_executed_in_chunks() -> None:
    (item,) = waiting(forward(40, pages=(0, 1, 2), last=8))
    seen = []
    while not item.has_left:
        (chunk,) = next_batch([item], ADAPTIVE, LIMITS, 16, 0.0).chunks
        seen.append((chunk.first, chunk.end))
        item.rows_done = chunk.end
    assert seen == [(0, 16), (16, 32), (32, 40)]


def test_a_decode_overtakes_a_prefill_that_has_been_served_already() -> None:
    prefill, decode = waiting(forward(64, pages=(0, 1, 2, 3)), forward(1, pages=(9,)))
    prefill.rows_done = 16
    plan = next_batch([prefill, decode], ADAPTIVE, LIMITS, 16, 0.0)
    assert arrivals(plan) == [1, 0]
    assert plan.chunks[1].end == 16 + 15


def test_a_pass_leaves_only_behind_what_it_depends_on() -> None:
    first = WaitingPass(forward(4, pages=(0,), last=4, priority=Priority.LOW), 0, ())
    second = WaitingPass(forward(1, pages=(0,), last=5, priority=Priority.HIGH), 1, (first,))
    plan = next_batch([first, second], ADAPTIVE, LIMITS, 100, 0.0)
    assert arrivals(plan) == [0, 1], "the later one is more urgent, yet stands behind"
    assert arrivals(next_batch([first, second], ADAPTIVE, LIMITS, 4, 0.0)) == [0]
    assert arrivals(next_batch([first, second], ADAPTIVE, LIMITS, 3, 0.0)) == [0]


def test_a_pass_that_overwrites_what_the_batch_reads_waits() -> None:
    reader = forward(1, pages=(0,), last=10)
    writer = forward(1, pages=(0,), last=4, owner=1, queue=1)
    plan = next_batch(waiting(reader, writer), ADAPTIVE, LIMITS, 100, 0.0)
    assert arrivals(plan) == [0]


def test_a_pass_that_continues_a_page_joins_the_batch() -> None:
    plan = next_batch(
        waiting(forward(4, pages=(0,), last=4), forward(2, pages=(0,), last=6)),
        ADAPTIVE,
        LIMITS,
        100,
        0.0,
    )
    assert arrivals(plan) == [0, 1]


def test_an_embedding_is_read_in_a_later_batch_than_it_is_written() -> None:
    writer = forward(1, pages=(0,), embed_outputs=((0, 3),))
    reader = attrs.evolve(forward(1, pages=(1,)), tokens=(-1 - 3,))
    assert arrivals(next_batch(waiting(writer, reader), ADAPTIVE, LIMITS, 100, 0.0)) == [0]


def test_a_pass_follows_whoever_writes_what_it_reads_in_whatever_queue() -> None:
    order = PassOrder()
    writer = order.submit(forward(4, pages=(0,), queue=0, embed_outputs=((0, 3),)))
    of_page = order.submit(forward(1, pages=(0,), last=5, queue=1))
    of_embedding = order.submit(attrs.evolve(forward(1, pages=(1,), queue=2), tokens=(-1 - 3,)))
    of_neither = order.submit(forward(1, pages=(2,), queue=3))
    assert of_page.after == of_embedding.after == (writer,)
    assert of_neither.after == ()
    order.leave(writer)
    assert order.submit(forward(1, pages=(3,), queue=0)).after == ()


def test_higher_priority_goes_first_until_waiting_has_lifted_the_lower() -> None:
    low = forward(8, pages=(0,), priority=Priority.LOW, at=0.0)
    high = forward(8, pages=(1,), priority=Priority.HIGH, at=0.9)
    assert arrivals(next_batch(waiting(low, high), ADAPTIVE, LIMITS, 8, 0.9)) == [1]
    starved = forward(8, pages=(1,), priority=Priority.HIGH, at=3.5)
    assert arrivals(next_batch(waiting(low, starved), ADAPTIVE, LIMITS, 8, 3.5)) == [0]


def test_normal_priority_is_above_low() -> None:
    low = forward(8, pages=(0,), priority=Priority.LOW)
    normal = forward(8, pages=(1,))
    assert arrivals(next_batch(waiting(low, normal), ADAPTIVE, LIMITS, 8, 0.0)) == [1]


@pytest.mark.parametrize(
    ("batching", "count", "now", "expected", "again"),
    [
        (Batching(BatchTrigger.EAGER), 3, 0.0, 1, None),
        (Batching(BatchTrigger.K_ONLY, k=4), 3, 99.0, 0, None),
        (Batching(BatchTrigger.K_ONLY, k=4), 6, 0.0, 4, None),
        (Batching(BatchTrigger.T_ONLY, t_seconds=0.5), 9, 0.1, 0, 0.5),
        (Batching(BatchTrigger.T_ONLY, t_seconds=0.5), 9, 0.5, 9, None),
        (Batching(BatchTrigger.K_OR_T, k=4, t_seconds=0.5), 3, 0.1, 0, 0.5),
        (Batching(BatchTrigger.K_OR_T, k=4, t_seconds=0.5), 4, 0.1, 4, None),
        (Batching(BatchTrigger.K_OR_T, k=4, t_seconds=0.5), 1, 0.5, 1, None),
    ],
)
def test_each_trigger_sends_what_the_paper_says(
    batching: Batching, count: int, now: float, expected: int, again: float | None
) -> None:
    passes = waiting(*(forward(pages=(n,)) for n in range(count)))
    plan = next_batch(passes, batching, LIMITS, 1000, now)
    assert len(plan.chunks) == expected
    assert plan.ask_again_at == again


@pytest.mark.parametrize("trigger", [BatchTrigger.K_ONLY, BatchTrigger.T_ONLY, BatchTrigger.K_OR_T])
def test_the_rest_of_a_pass_that_was_begun_waits_for_no_trigger(trigger: BatchTrigger) -> None:
    (rest,) = waiting(forward(10))
    batching = Batching(trigger, k=4, t_seconds=5.0)
    assert arrivals(next_batch([rest], batching, LIMITS, 8, 0.0)) == []
    rest.rows_done = 8
    assert arrivals(next_batch([rest], batching, LIMITS, 8, 0.0)) == [0]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 3), st.integers(0, 2)), max_size=20),
    st.integers(1, 50),
)
def test_batches_lose_and_double_nothing_and_keep_the_order_of_a_queue(
    shapes: list[tuple[int, int, int]], budget: int
) -> None:
    tails: dict[int, WaitingPass] = {}
    items: list[WaitingPass] = []
    for arrival, (rows, queue, priority) in enumerate(shapes):
        pages = tuple(range(100 * arrival, 100 * arrival + (rows + 15) // 16))
        item = forward(rows, pages=pages, queue=queue, priority=Priority(priority))
        before = tails.get(queue)
        items.append(WaitingPass(item, arrival, (before,) if before else ()))
        tails[queue] = items[-1]
    left, order = list(items), []
    while left:
        plan = next_batch(left, ADAPTIVE, LIMITS, budget, 0.0)
        assert 0 < sum(c.end - c.first for c in plan.chunks) <= budget
        for chunk in plan.chunks:
            assert chunk.first == chunk.waiting.rows_done
            chunk.waiting.rows_done = chunk.end
            order.append(chunk.waiting)
        left = [item for item in left if not item.has_left]
    assert all(item.rows_done == len(item.forward.tokens) for item in items)
    for queue in range(4):
        mine = [item.ordinal for item in order if item.forward.queue == queue]
        assert mine == sorted(mine)


def output(row: int, kind: wire.SamplerKind = wire.SamplerKind.MULTINOMIAL) -> wire.OutputRow:
    return wire.OutputRow(row, kind, 1.0)


def test_a_chunk_ends_its_context_with_its_last_row() -> None:
    (item,) = waiting(forward(40, pages=(5, 6, 7, 8), last=2, outputs=(output(39), output(3))))
    chunk = Chunk(item, 16, 32)  # 50 slots, 10 before the first row: the chunk ends at slot 42
    request = request_for(chunk)
    assert (request.pages, request.last_page_length) == ((5, 6, 7), 10)
    assert request.tokens == tuple(range(16, 32))
    assert request.outputs == ()


def test_a_row_draws_the_same_however_its_pass_was_cut() -> None:
    seed = pass_seed(1, 2, 3, 4)
    assert mix(seed_from_row(seed, 37), 2) == mix(seed, 39)


def test_outputs_come_back_in_the_order_in_which_they_were_asked() -> None:
    wanted = (output(30), output(2, wire.SamplerKind.DISTRIBUTION), output(5))
    (item,) = waiting(forward(31, pages=(0, 1), outputs=wanted))
    collected = Collected()
    collected.add(Chunk(item, 0, 16), wire.Answer((55,), (([1], [1.0]),), None))
    collected.add(Chunk(item, 16, 31), wire.Answer((99,), (), None))
    result = collected.result(item.forward)
    assert result.tokens == (99, 55)
    assert result.distributions == (([1], [1.0]),)


def test_seeds_differ_by_who_asks() -> None:
    seeds = {pass_seed(*who) for who in [(1, 0, 0, 0), (2, 0, 0, 0), (1, 1, 0, 0), (1, 0, 1, 0)]}
    assert len(seeds | {pass_seed(1, 0, 0, 1)}) == 5
