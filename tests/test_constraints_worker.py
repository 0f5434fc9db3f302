"""Grammars in the worker: what may follow a text, whatever the worker has forgotten of it."""

from __future__ import annotations

import struct
from pathlib import Path

import attrs
import numpy as np
import pytest
from llguidance import LLMatcher

from gpu_worker import constraints
from gpu_worker.constraints import Constraints, Refusal
from gpu_worker.pretend import Pace, PretendExecutor, PretendModel
from gpu_worker.sampler import Choice, sample
from gpu_worker.wire import (
    Answer,
    Batch,
    BatchArrays,
    GrammarBounds,
    Lesson,
    OutputRow,
    Request,
    SamplerKind,
    WireError,
    WorkerLimits,
    decode,
    encode,
)
from pie_trio.services.model_store import pretend_model

END = 258
BOUNDS = GrammarBounds(400_000, 100_000, 25_000, 20_000, 100_000)
LIMITS = WorkerLimits(4, 1 << 20, 64, 8, 64, 32)


def regex(pattern: str) -> str:
    grammar: str = LLMatcher.grammar_from_regex(pattern)
    return grammar


def lesson(*patterns: str, forgotten: tuple[int, ...] = ()) -> Lesson:
    """The patterns are grammars 1, 2, ..."""
    grammars = tuple((number, regex(each)) for number, each in enumerate(patterns, 1))
    return Lesson((END,), BOUNDS, grammars, forgotten)


def written(number: int, text: str = "") -> bytes:
    return struct.pack(f"<{len(text) + 1}i", number, *text.encode())


@pytest.fixture
def known() -> Constraints:
    found = Constraints(pretend_model().path / "tokenizer.json", 264)
    found.learn(lesson("[ab]{2}c?", "x+"))
    return found


def allowed(of: Constraints, text: bytes) -> list[int]:
    found = of.prepare(None, [text])[text]
    assert not isinstance(found, Refusal), found
    return [int(token) for token in found]


def test_what_may_follow_is_told_for_every_beginning(known: Constraints) -> None:
    assert allowed(known, written(1)) == [*b"ab"]
    assert allowed(known, written(1, "ab")) == [*b"c", END]
    assert allowed(known, written(1, "abc")) == [END]
    assert allowed(known, written(2, "xxx")) == [*b"x", END]


def test_going_on_and_reading_anew_come_to_the_same(known: Constraints) -> None:
    assert allowed(known, written(1)) == [*b"ab"]
    assert known.advance([(written(1), ord("a")), (written(1), ord("b"))]) == [False, False]
    assert known.advance([(written(1, "a"), ord("b"))]) == [False]
    assert known.advance([(written(1, "ab"), ord("c"))]) == [True]
    assert known.advance([(written(1, "ba"), END)]) == [True]
    assert allowed(known, written(1, "b")) == [*b"ab"]  # a beginning, after the text has ended


def test_forgetting_texts_changes_nothing(
    known: Constraints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constraints, "TEXTS_REMEMBERED", 1)
    texts = [written(1, "a"), written(2, "x"), written(1, "ab")]
    found = known.prepare(None, texts)
    assert [np.asarray(found[text]).tolist() for text in texts] == [
        [*b"ab"],
        [*b"x", END],
        [*b"c", END],
    ]
    assert known.advance([(texts[0], ord("a")), (texts[2], ord("c"))]) == [False, True]
    assert len(known._texts) == 1


def test_what_a_grammar_forbids_is_refused_and_costs_nobody_else(known: Constraints) -> None:
    bad, good = written(1, "z"), written(1, "a")
    found = known.prepare(None, [bad, good])
    assert isinstance(found[bad], Refusal)
    assert np.asarray(found[good]).tolist() == [*b"ab"]
    assert isinstance(known.advance([(good, ord("z"))])[0], Refusal)
    assert allowed(known, good) == [*b"ab"]


def test_a_grammar_of_which_it_was_not_told_or_that_is_forgotten_is_refused(
    known: Constraints,
) -> None:
    unknown = known.prepare(None, [written(7)])[written(7)]
    assert isinstance(unknown, Refusal)
    assert "not told of grammar 7" in unknown.reason
    known.learn(lesson(forgotten=(2,)))
    assert isinstance(known.prepare(None, [written(2)])[written(2)], Refusal)


def test_a_grammar_beyond_its_bounds_is_refused_by_name(known: Constraints) -> None:
    known.learn(
        attrs.evolve(lesson("a{500}b|a{499}c"), bounds=attrs.evolve(BOUNDS, compile_fuel=9))
    )
    found = known.prepare(None, [written(1)])[written(1)]
    assert isinstance(found, Refusal)
    assert found.reason.startswith("constraint: ")
    assert len(found.reason) <= constraints.REASON_CHARACTERS


def through_the_wire(worker: PretendExecutor, batch: Batch) -> tuple[Answer, ...]:
    arrays = decode(encode(batch))
    assert isinstance(arrays, BatchArrays)
    result = decode(encode(worker.execute(arrays)))
    answers: tuple[Answer, ...] = getattr(result, "answers", ())
    return answers


def request(text: bytes, page: int, token: int = 70, temperature: float = 0.0) -> Request:
    output = OutputRow(0, SamplerKind.MULTINOMIAL, temperature, written=text)
    return Request([token], [0], [page], 1, None, (output,), (), seed=page)


def test_the_pretend_worker_obeys_and_tells_which_texts_are_closed() -> None:
    model = PretendModel.read(pretend_model().path)
    worker = PretendExecutor(model, LIMITS, Pace())
    requests = [request(written(1, "ab"), page, 70 + page, 1.0) for page in range(20)]
    batch = Batch(1, 1, (), [*requests, request(b"", 21)], lesson("[ab]{2}[cd]?e"))
    *answers, free = through_the_wire(worker, batch)
    assert {answer.tokens[0] for answer in answers} == {*b"cde"}
    assert all(answer.is_closed == (answer.tokens[0] == ord("e")) for answer in answers)
    assert not free.is_closed


def test_a_lesson_counts_even_when_nothing_of_its_batch_can_be_executed() -> None:
    worker = PretendExecutor(PretendModel.read(pretend_model().path), LIMITS, Pace())
    broken = Batch(1, 1, ((0, 999),), [request(written(1), 0)], lesson("q"))
    assert through_the_wire(worker, broken)[0].error
    (answer,) = through_the_wire(worker, Batch(1, 2, (), [request(written(1), 0)]))
    assert (answer.tokens, answer.is_closed) == ((ord("q"),), True)


def test_a_text_with_a_token_that_is_none_costs_its_request_alone() -> None:
    worker = PretendExecutor(PretendModel.read(pretend_model().path), LIMITS, Pace())
    bad = struct.pack("<2i", 1, -5)
    batch = Batch(1, 1, (), [request(bad, 0), request(written(1), 1)], lesson("q"))
    refused, good = through_the_wire(worker, batch)
    assert refused.error
    assert good.tokens == (ord("q"),)


@pytest.mark.parametrize(
    "value",
    [7, [[1]], [[2], [1, 2, 3, 4], [], []], [[2], [1] * 5, [[1, 2]], []], [[], [1] * 5, [], []]],
)
def test_a_malformed_lesson_is_a_wire_error(value: object) -> None:
    import msgpack

    frames = encode(Batch(1, 1, (), [request(b"", 0)]))
    header = msgpack.unpackb(frames[0])
    with pytest.raises(WireError, match="lesson"):
        decode([msgpack.packb(header | {"lesson": value}), *frames[1:]])


KINDS = {
    "greedy": OutputRow(0, SamplerKind.MULTINOMIAL, 0.0),
    "multinomial": OutputRow(0, SamplerKind.MULTINOMIAL, 5.0),
    "top-k": OutputRow(0, SamplerKind.TOP_K, 5.0, top_k=3),
    "top-p": OutputRow(0, SamplerKind.TOP_P, 5.0, top_p=0.9),
    "min-p": OutputRow(0, SamplerKind.MIN_P, 5.0, min_p=0.01),
    "top-k-top-p": OutputRow(0, SamplerKind.TOP_K_TOP_P, 5.0, top_k=9, top_p=0.9),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_sampler_chooses_among_what_is_allowed_as_from_a_smaller_vocabulary(
    kind: str,
) -> None:
    logits = np.random.default_rng(1).standard_normal((1, 2000), np.float32) * 3
    some = np.array([3, 500, 501, 1999])
    for seed in range(50):
        ((token,),) = sample(logits, [Choice(KINDS[kind], seed, some)], 16)
        ((rank,),) = sample(logits[:, some], [Choice(KINDS[kind], seed)], 16)
        assert token == some[rank]


def test_a_distribution_is_over_what_is_allowed() -> None:
    logits = np.arange(300, dtype=np.float32)[None]
    output = OutputRow(0, SamplerKind.DISTRIBUTION, 1.0, top_k=8)
    (((ids, shares),),) = sample(logits, [Choice(output, 0, np.array([5, 7]))], 16)
    assert ids == [7, 5]
    assert sum(shares) == pytest.approx(1)


def test_a_vocabulary_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="tokenizer"):
        Constraints(tmp_path / "tokenizer.json", 264).learn(lesson("a"))
