"""The worker's last check: each rule is broken once, beside a request that breaks none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import pytest

from gpu_worker.multi_step import execute_steps
from gpu_worker.pretend import Pace, PretendExecutor, PretendModel
from gpu_worker.wire import (
    Batch,
    BatchArrays,
    MultiStep,
    OutputRow,
    Request,
    SamplerKind,
    WorkerLimits,
    decode,
    encode,
    pack_adjustments,
)

GOOD = Request(
    tokens=(1, 2),
    positions=(0, 1),
    pages=(0, 1),
    last_page_length=2,
    mask=((0, 5), (0, 2, 4, 6)),
    outputs=(OutputRow(1, SamplerKind.TOP_P, 1.0, top_p=0.5),),
    embed_outputs=((0, 1),),
    seed=0,
)
HOT = SamplerKind.MULTINOMIAL


def adjusting(*records: tuple[int, float, float]) -> OutputRow:
    return OutputRow(0, HOT, 1.0, adjustments=pack_adjustments(records))


BROKEN: Mapping[str, Mapping[str, Any]] = {
    "a request has no rows": {"tokens": (), "positions": (), "mask": ()},
    "the last page length is outside the page": {"last_page_length": 5},
    "the pages do not hold the rows": {"pages": (0,), "last_page_length": 1, "mask": None},
    "a page does not exist": {"pages": (0, 64)},
    "a token is outside the vocabulary": {"tokens": (1, 264)},
    "a position is negative": {"positions": (0, -1)},
    "a mask lies outside the context": {"mask": ((0, 5), (0, 7))},
    "a mask interval ends before it starts": {"mask": ((0, 5), (3, 2))},
    "mask intervals overlap": {"mask": ((0, 5), (0, 3, 2, 4))},
    "an output row does not exist": {"outputs": (OutputRow(2, HOT, 1.0),)},
    "a temperature is not a number from nought up": {"outputs": (OutputRow(0, HOT, -1.0),)},
    "top-k is negative": {"outputs": (OutputRow(0, HOT, 1.0, top_k=-1),)},
    "top-p and min-p lie between nought and one": {"outputs": (OutputRow(0, HOT, 1.0, top_p=2.0),)},
    "so many log-probabilities are not given": {"outputs": (OutputRow(0, HOT, 1.0, logprobs=34),)},
    "an adjustment is out of bounds": {"outputs": (adjusting((1, 1.0, 0.0), (264, 1.0, 0.0)),)},
    "an embedding output does not exist": {"embed_outputs": ((0, 8),)},
}


def executor() -> PretendExecutor:
    return PretendExecutor(PretendModel(), WorkerLimits(4, 1 << 20, 64, 8, 8, 32), Pace())


def errors(worker: PretendExecutor, batch: Batch) -> list[str | None]:
    arrays = decode(encode(batch))
    assert isinstance(arrays, BatchArrays)
    return [answer.error for answer in worker.execute(arrays).answers]


@pytest.mark.parametrize("text", BROKEN)
def test_a_request_that_breaks_a_rule_is_refused_by_name_and_alone(text: str) -> None:
    bad = attrs.evolve(GOOD, **BROKEN[text])
    assert errors(executor(), Batch(1, 1, (), (GOOD, bad, GOOD))) == [None, text, None]


@pytest.mark.parametrize(
    "record",
    [
        *((0, factor, 0.0) for factor in (0.0, -1.0, float("nan"), 1e7)),
        *((0, 1.0, addend) for addend in (float("nan"), float("-inf"), 2e9)),
        (-1, 1.0, 0.0),
    ],
)
def test_an_adjustment_that_could_make_a_logit_no_number_is_refused(
    record: tuple[int, float, float],
) -> None:
    bad = attrs.evolve(GOOD, outputs=(adjusting((1, 1.0, 0.0)), adjusting(record)))
    text = "an adjustment is out of bounds"
    assert errors(executor(), Batch(1, 1, (), (GOOD, bad, GOOD))) == [None, text, None]
    good = attrs.evolve(GOOD, outputs=(adjusting((263, 1e6, 1e9), (0, 1e-6, -1e9)),))
    assert errors(executor(), Batch(1, 1, (), (good,))) == [None]


@pytest.mark.parametrize("temperature", [float("nan"), float("inf")])
def test_a_temperature_that_is_no_number_is_refused(temperature: float) -> None:
    bad = attrs.evolve(GOOD, outputs=(OutputRow(0, HOT, temperature),))
    (error,) = errors(executor(), Batch(1, 1, (), (bad,)))
    assert error is not None
    assert "temperature" in error


def test_too_many_rows_refuse_the_whole_batch() -> None:
    found = errors(executor(), Batch(1, 1, (), (GOOD,) * 5))
    assert found == ["10 rows are more than a batch takes (8)"] * 5


def test_a_copy_of_a_page_that_does_not_exist_refuses_the_whole_batch() -> None:
    found = errors(executor(), Batch(1, 1, ((0, 64),), (GOOD,)))
    assert found == ["a page copy names a page that does not exist"]


@pytest.mark.parametrize(
    ("spare", "position", "text"),
    [
        (63, 7, None),
        (64, 7, "a page to grow into does not exist"),
        (63, 2**31 - 4, None),
        (63, 2**31 - 3, "a position is too large to go on"),
    ],
)
def test_what_later_steps_would_do_is_judged_with_the_first(
    spare: int, position: int, text: str | None
) -> None:
    good = Request((1,), (7,), (0, 1), 4, None, (OutputRow(0, HOT, 0.0),), (), 0)
    bad = attrs.evolve(good, positions=(position,), pages=(2, 3))
    more = MultiStep(3, 3, 1.0, ((5,), (spare,)), ((0, 0), (0, 0)), ((), ()))
    batch = decode(encode(Batch(1, 1, (), (good, bad), None, more)))
    assert isinstance(batch, BatchArrays)
    worker = executor()
    result = execute_steps(worker.execute, 4, batch, lambda: False, lambda _part: None)
    steps = 1 if text else 3
    assert [answer.error for answer in result.answers] == [None, text] * steps
