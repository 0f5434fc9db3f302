"""The pretend executor: its tokens change with everything that is read, and with nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import pytest

from gpu_worker.pretend import Pace, PretendExecutor, PretendModel
from gpu_worker.wire import (
    Answer,
    Batch,
    BatchArrays,
    OutputRow,
    Request,
    SamplerKind,
    WorkerLimits,
    decode,
    encode,
    pack_adjustments,
)

LIMITS = WorkerLimits(4, 1 << 20, 64, 8, 64, 32)


def executor(pace: Pace | None = None) -> PretendExecutor:
    return PretendExecutor(PretendModel(), LIMITS, pace or Pace())


def run(
    worker: PretendExecutor, *requests: Request, copies: Sequence[tuple[int, int]] = ()
) -> tuple[Answer, ...]:
    arrays = decode(encode(Batch(1, 1, tuple(copies), requests)))
    assert isinstance(arrays, BatchArrays)
    return worker.execute(arrays).answers


def request(
    tokens: Sequence[int],
    pages: Sequence[int],
    start: int = 0,
    *,
    mask: Sequence[Sequence[int]] | None = None,
    kind: SamplerKind = SamplerKind.MULTINOMIAL,
    temperature: float = 0.0,
    seed: int = 0,
    embed_outputs: Sequence[tuple[int, int]] = (),
) -> Request:
    """A pass over pages of four slots whose last row is wanted."""
    last = (start + len(tokens) - 1) % 4 + 1
    positions = range(start, start + len(tokens))
    output = OutputRow(len(tokens) - 1, kind, temperature)
    return Request(tokens, positions, pages, last, mask, (output,), embed_outputs, seed)


def test_the_token_depends_on_content_and_not_on_page_numbers() -> None:
    worker = executor()
    here, there = run(worker, request([1, 2, 3, 4, 5], [0, 1]), request([1, 2, 3, 4, 5], [9, 7]))
    assert here == there
    assert here.error is None


@pytest.mark.parametrize(
    "tokens, pages, start",
    [([5], [0, 9], 4), ([5], [9, 1], 4), ([6], [0, 1], 4)],
    ids=["stale page at the end", "foreign page at the start", "another token"],
)
def test_another_page_or_token_gives_another_token(
    tokens: list[int], pages: list[int], start: int
) -> None:
    worker = executor()
    prefix = request([1, 2, 3, 4], [0])
    run(worker, prefix, request([4, 3, 2, 1], [9]))
    (right,) = run(worker, request([5], [0, 1], 4))
    run(worker, request([8, 8, 8, 8], [9]))
    (other,) = run(worker, request(tokens, pages, start))
    (distribution,) = run(worker, request(tokens, pages, start, kind=SamplerKind.DISTRIBUTION))
    if pages == [0, 9]:
        assert other == right, "a page that the new row fills itself does not matter"
    else:
        assert other != right
    assert distribution.distributions[0][0][0] == other.tokens[0]


def test_masked_slots_leave_no_trace() -> None:
    worker = executor()
    run(worker, request([1, 2, 3, 4], [0]), request([1, 7, 8, 4], [1]))
    one, other = (
        run(worker, request([5], [page, spare], 4, mask=[(0, 1, 3, 5)]))[0]
        for page, spare in ((0, 2), (1, 3))
    )
    assert one == other
    seeing, else_seeing = (
        run(worker, request([5], [page, spare], 4))[0] for page, spare in ((0, 2), (1, 3))
    )
    assert seeing != else_seeing


def test_the_order_of_slots_counts() -> None:
    worker = executor()
    one = Request((1, 2), (0, 1), (0,), 2, None, (OutputRow(1, SamplerKind.TOP_K, 0.0),), (), 0)
    other = Request((2, 1), (1, 0), (1,), 2, None, (OutputRow(1, SamplerKind.TOP_K, 0.0),), (), 0)
    first, second = run(worker, one, other)
    assert first != second


def test_a_copied_page_reads_like_its_source() -> None:
    worker = executor()
    run(worker, request([1, 2, 3, 4], [0]))
    (here,) = run(worker, request([5], [0, 1], 4))
    (there,) = run(worker, request([5], [3, 1], 4), copies=[(0, 3)])
    assert here == there


def test_a_request_reads_what_an_earlier_one_of_its_batch_wrote() -> None:
    together = executor()
    _, late = run(together, request([1, 2, 3, 4], [0]), request([5], [0, 1], 4))
    apart = executor()
    run(apart, request([1, 2, 3, 4], [0]))
    assert run(apart, request([5], [0, 1], 4)) == (late,)


def test_a_stored_embedding_is_read_instead_of_a_token() -> None:
    worker = executor()
    run(worker, request([1], [0], embed_outputs=[(0, 5)]))
    (one,) = run(worker, request([-6], [1]))
    run(worker, request([2], [0], embed_outputs=[(0, 5)]))
    (other,) = run(worker, request([-6], [1]))
    assert one != other


def test_a_seed_gives_the_same_token_in_any_batch() -> None:
    worker = executor()
    hot = request([1, 2], [0], temperature=1.0, seed=11)
    (alone,) = run(worker, hot)
    *_, amid = run(worker, request([9], [1]), hot)
    assert alone == amid
    others = {run(worker, request([1, 2], [0], temperature=1.0, seed=s))[0] for s in range(20)}
    assert len(others) > 5


def test_adjustments_change_the_token_in_whatever_order_and_no_log_probability() -> None:
    worker = executor()
    plain = request([1, 2], [0])

    def adjusted(*records: tuple[int, float, float]) -> Answer:
        adjustments = pack_adjustments(records)
        output = attrs.evolve(plain.outputs[0], logprobs=3, adjustments=adjustments)
        (answer,) = run(worker, attrs.evolve(plain, outputs=(output,)))
        return answer

    one, two = (70, 2.0, 0.0), (71, 1.0, -3.5)
    assert adjusted(one, two) == adjusted(two, one)
    answers = [adjusted(*records) for records in ((), (one,), (two,), (one, two))]
    assert answers[0].tokens == run(worker, plain)[0].tokens
    assert len({answer.tokens for answer in answers}) == 4
    lists = [answer.distributions[0] for answer in answers]
    assert len({str(ids[1:]) + str(values[1:]) for ids, values in lists}) == 1
    assert [ids[0] for ids, _ in lists] == [answer.tokens[0] for answer in answers]
    ids, values = lists[0]
    assert ids[0] == ids[1], "the likeliest is the greedy one"
    assert values[0] == values[1] > values[2]


def test_a_bad_request_answers_for_itself_alone() -> None:
    worker = executor()
    good = request([1, 2], [0])
    (expected,) = run(worker, good)
    bad = request([1, 2], [64])
    assert run(worker, bad, good)[1] == expected
    assert run(worker, bad, good)[0].error == "a page does not exist"


def test_the_end_token_comes_only_if_it_is_asked_for() -> None:
    never, often = executor(), executor(Pace(end_every=3))
    for worker, expects_end in ((never, False), (often, True)):
        tokens = [run(worker, request([i], [0]))[0].tokens[0] for i in range(60)]
        assert (258 in tokens) == expects_end
        assert all(32 <= token < 127 or token == 258 for token in tokens)
