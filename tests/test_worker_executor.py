"""The real executor against transformers: the same file, the same arithmetic, the same logits.

Every kind of kernels must hold it. Tiny models with random weights cover the architectures, the
default model covers the numbers that matter. Every comparison is of all rows of all requests,
within 1e-3.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

from gpu_worker.attention.gathered import attend
from gpu_worker.attention.plan import make_plan
from gpu_worker.bf16 import Wide
from gpu_worker.constraints import Constraints
from gpu_worker.executor import ModelExecutor, facts_of
from gpu_worker.kernels import Decoder, Memory, Step
from gpu_worker.kv_cache import KvCache
from gpu_worker.models.config import DecoderConfig
from gpu_worker.models.llama import read_parameters
from gpu_worker.weights import Weights
from gpu_worker.wire import (
    ADDEND_MAX,
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
from gpu_worker.wire.arrays import Array
from tests.support.kernels import KINDS, kernels
from tests.support.worker_models import default_model, tiny_model

PAGE = 16
LIMITS = WorkerLimits(PAGE, 1 << 30, 128, 8, 512, 32)
TOLERANCE = 1e-3
Mask = list[list[bool]]


@attrs.define
class Recording:
    """A decoder that also keeps the logits of all rows."""

    decoder: Decoder
    recorded: list[torch.Tensor] = attrs.field(factory=list)

    @property
    def memory(self) -> Memory:
        return self.decoder.memory

    def forward(self, step: Step) -> Wide:
        hidden = self.decoder.forward(step)
        self.recorded.append(torch.from_numpy(self.decoder.logits(hidden)))
        return hidden

    def best_after(self, step: Step) -> tuple[Array, Array]:
        """Both ways, which give the same."""
        best, finite = self.decoder.best_after(step)
        expected = self.best(self.forward(step))
        assert (best.tolist(), finite.tolist()) == tuple(each.tolist() for each in expected)
        return best, finite

    def logits(self, hidden: Wide) -> Wide:
        return self.decoder.logits(hidden)

    def best(self, hidden: Wide) -> tuple[Array, Array]:
        return self.decoder.best(hidden)


@attrs.define
class Machine:
    """An executor beside the reference; pages are given out in a shuffled order."""

    model: Recording
    executor: ModelExecutor
    reference: Any
    free: list[int]
    draw: random.Random

    def run(self, *requests: Request, copies: Sequence[tuple[int, int]] = ()) -> list[torch.Tensor]:
        """The logits of all rows of each request."""
        self.model.recorded = []
        answers = self.answers(*requests, copies=copies)
        assert [answer.error for answer in answers] == [None] * len(requests)
        logits = torch.cat(self.model.recorded)
        ends = list(accumulate(len(request.tokens) for request in requests))
        return [logits[a:b] for a, b in pairwise([0, *ends])]

    def answers(
        self, *requests: Request, copies: Sequence[tuple[int, int]] = ()
    ) -> tuple[Answer, ...]:
        arrays = decode(encode(Batch(1, 1, tuple(copies), requests)))
        assert isinstance(arrays, BatchArrays)
        return self.executor.execute(arrays).answers

    @torch.inference_mode()
    def expect(
        self, tokens: list[int], positions: list[int] | None = None, mask: Mask | None = None
    ) -> torch.Tensor:
        """What transformers gives for the whole sequence at once."""
        count = len(tokens)
        seen = torch.tensor(mask) if mask else torch.ones(count, count, dtype=torch.bool).tril()
        added = torch.zeros(count, count).masked_fill(~seen, float("-inf"))[None, None]
        output = self.reference(
            torch.tensor([tokens]),
            position_ids=torch.tensor([positions or list(range(count))]),
            attention_mask=added,
            use_cache=False,
        )
        logits: torch.Tensor = output.logits[0]
        return logits

    def text(self, length: int) -> list[int]:
        return [self.draw.randrange(self.executor.facts.vocab_size) for _ in range(length)]

    def pages(self, slots: int) -> list[int]:
        return [self.free.pop() for _ in range(-(-slots // PAGE))]


def machine(directory: Path, kind: str, numeric: str = "bf16") -> Machine:
    import transformers

    load: Any = transformers.AutoModelForCausalLM.from_pretrained
    reference = load(directory, dtype=torch.float32, attn_implementation="eager").eval()
    config = DecoderConfig.read(directory)
    facts = facts_of("tested", config, LIMITS, kind)
    parameters = read_parameters(config, Weights(directory))
    model = Recording(kernels(kind, numeric).decoder(config, parameters, facts.pages, PAGE))
    constraints = Constraints(directory / "tokenizer.json", config.vocab_size)
    draw = random.Random(3)
    free = list(range(LIMITS.pages_max or 0))
    draw.shuffle(free)
    return Machine(model, ModelExecutor(facts, model, constraints), reference, free, draw)


def check_shuffled_batches(m: Machine) -> None:
    """The last row of each sequence is computed again, in a hundred batches of any order
    and size: it gets the same likeliest token and, but for rounding, the same logits."""
    texts = [m.text(length) for length in (2, 5, 16, 17, 30, 33, 47, 64, 9, 21)]
    pages = [m.pages(len(text)) for text in texts]
    for text, held in zip(texts, pages, strict=True):
        m.run(part(text, held, 0, len(text) - 1))
    lasts = [part(t, held, len(t) - 1, len(t)) for t, held in zip(texts, pages, strict=True)]
    alone = [m.run(last)[0] for last in lasts]
    for _ in range(100):
        order = m.draw.sample(range(len(lasts)), m.draw.randint(1, len(lasts)))
        for index, logits in zip(order, m.run(*(lasts[i] for i in order)), strict=True):
            assert int(logits.argmax()) == int(alone[index].argmax())
            torch.testing.assert_close(logits, alone[index], rtol=0, atol=1e-3)


CASES = [
    *(pytest.param((model, kind)) for model in ("llama", "llama3", "qwen2") for kind in KINDS),
    *(
        pytest.param(("default", kind), marks=[pytest.mark.model, pytest.mark.slow])
        for kind in ("torch", "avx2", "avx512")
    ),
]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    model, kind = request.param
    if model == "default":
        return machine(default_model(), kind)
    return machine(tiny_model(tmp_path_factory.mktemp("models"), model), kind)


@pytest.fixture
def m(loaded: Machine) -> Iterator[Machine]:
    """Every test gets all pages back, with whatever the others left in them."""
    free = list(loaded.free)
    yield loaded
    loaded.free[:] = free


def part(
    tokens: list[int],
    pages: list[int],
    start: int,
    end: int,
    positions: list[int] | None = None,
    mask: Mask | None = None,
) -> Request:
    """The pass that appends tokens[start:end] to pages that hold what is before."""
    count = -(-end // PAGE)
    rows = range(end - start)
    return Request(
        tokens=tokens[start:end],
        positions=(positions or list(range(end)))[start:end],
        pages=pages[:count],
        last_page_length=end - (count - 1) * PAGE,
        mask=None if mask is None else [intervals(mask[row][:end]) for row in range(start, end)],
        outputs=[OutputRow(row, SamplerKind.MULTINOMIAL, 0.0) for row in rows],
        embed_outputs=[],
        seed=0,
    )


def intervals(seen: list[bool]) -> list[int]:
    flat: list[int] = []
    for slot, is_seen in enumerate(seen):
        if is_seen and flat and flat[-1] == slot:
            flat[-1] = slot + 1
        elif is_seen:
            flat += [slot, slot + 1]
    return flat


def agree(ours: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(ours, expected, rtol=0, atol=TOLERANCE)


def test_a_prefill_agrees(m: Machine) -> None:
    tokens = m.text(37)
    (ours,) = m.run(part(tokens, m.pages(37), 0, 37))
    agree(ours, m.expect(tokens))


def test_decoding_one_token_at_a_time_agrees(m: Machine) -> None:
    tokens, pages = m.text(36), m.pages(36)
    ours = m.run(part(tokens, pages, 0, 30))
    for end in range(31, 37):
        ours += m.run(part(tokens, pages, end - 1, end))
    agree(torch.cat(ours), m.expect(tokens))


def test_a_chunked_prefill_agrees(m: Machine) -> None:
    tokens, pages = m.text(50), m.pages(50)
    ours = [m.run(part(tokens, pages, a, b))[0] for a, b in ((0, 7), (7, 32), (32, 49), (49, 50))]
    agree(torch.cat(ours), m.expect(tokens))


def test_two_branches_over_shared_pages_agree(m: Machine) -> None:
    stem, left, right = m.text(32), m.text(9), m.text(5)
    shared = m.pages(32)
    m.run(part(stem, shared, 0, 32))
    ours = m.run(
        part(stem + left, shared + m.pages(9), 32, 41),
        part(stem + right, shared + m.pages(5), 32, 37),
    )
    agree(ours[0], m.expect(stem + left)[32:])
    agree(ours[1], m.expect(stem + right)[32:])


def test_a_windowed_mask_agrees(m: Machine) -> None:
    """The prompt sees everything, then each decoded row sees one sink and a window of eight."""
    tokens, pages = m.text(45), m.pages(45)
    mask = [
        [k <= row and (row < 40 or k == 0 or k > row - 8) for k in range(45)] for row in range(45)
    ]
    ours = m.run(part(tokens, pages, 0, 40))
    for end in range(41, 46):
        ours += m.run(part(tokens, pages, end - 1, end, mask=mask))
    agree(torch.cat(ours), m.expect(tokens, mask=mask))


def test_a_tree_mask_with_odd_positions_agrees(m: Machine) -> None:
    count = 40
    tokens, pages = m.text(count), m.pages(count)
    positions = [m.draw.randrange(60) for _ in range(count)]
    mask = [
        [k == row or (k < row and m.draw.random() < 0.5) for k in range(count)]
        for row in range(count)
    ]
    ours = [
        m.run(part(tokens, pages, a, b, positions, mask))[0]
        for a, b in ((0, 20), (20, 39), (39, 40))
    ]
    agree(torch.cat(ours), m.expect(tokens, positions, mask))


def test_a_mixed_batch_agrees(m: Machine) -> None:
    """Decode, chunk, fresh prompt, a masked row, and one that reads what this batch writes."""
    first, second, third, fourth = m.text(31), m.text(100), m.text(16), m.text(21)
    pages = [m.pages(100) for _ in range(4)]
    mask = [[k <= row and (row < 20 or k % 3 != 1) for k in range(21)] for row in range(21)]
    m.run(
        part(first, pages[0], 0, 30), part(second, pages[1], 0, 63), part(fourth, pages[3], 0, 20)
    )
    ours = m.run(
        part(first, pages[0], 30, 31),
        part(second, pages[1], 63, 90),
        part(third, pages[2], 0, 16),
        part(fourth, pages[3], 20, 21, mask=mask),
        part(second, pages[1], 90, 100),
    )
    agree(ours[0], m.expect(first)[30:])
    agree(torch.cat((ours[1], ours[4])), m.expect(second)[63:])
    agree(ours[2], m.expect(third))
    agree(ours[3], m.expect(fourth, mask=mask)[20:])


def test_a_batch_of_decodes_of_all_lengths_agrees(m: Machine) -> None:
    texts = [m.text(length) for length in (1, 2, 15, 16, 17, 31, 33, 64)]
    pages = [m.pages(len(text)) for text in texts]
    for text, held in zip(texts, pages, strict=True):
        if len(text) > 1:
            m.run(part(text, held, 0, len(text) - 1))
    decodes = [part(t, p, len(t) - 1, len(t)) for t, p in zip(texts, pages, strict=True)]
    for ours, text in zip(m.run(*decodes), texts, strict=True):
        agree(ours, m.expect(text)[-1:])


def test_what_others_keep_is_never_read(m: Machine) -> None:
    """Every place that is not written here holds a value that would spoil whatever touches it."""
    short, long = m.text(18), m.text(31)
    pages = m.pages(18), m.pages(31)
    memory = m.executor._decoder.memory
    memory.keys[:] = float("nan")
    memory.values[:] = float("nan")
    try:
        m.run(part(short, pages[0], 0, 17), part(long, pages[1], 0, 30))
        ours = m.run(part(short, pages[0], 17, 18), part(long, pages[1], 30, 31))
    finally:
        memory.keys[:] = 0
        memory.values[:] = 0
    agree(ours[0], m.expect(short)[17:])
    agree(ours[1], m.expect(long)[30:])


def test_a_copied_page_continues_like_its_source(m: Machine) -> None:
    tokens, pages = m.text(21), m.pages(21)
    m.run(part(tokens, pages, 0, 20))
    twins = m.pages(20)
    copies = list(zip(pages, twins, strict=True))
    (ours,) = m.run(part(tokens, twins, 20, 21), copies=copies)
    agree(ours, m.expect(tokens)[20:])


def test_a_stored_embedding_is_the_final_hidden_row_and_can_be_read(m: Machine) -> None:
    tokens = m.text(5)
    keep = attrs.evolve(part(tokens, m.pages(5), 0, 5), embed_outputs=[(2, 3), (4, 0)])
    m.run(keep)
    with torch.inference_mode():
        hidden = m.reference.model(torch.tensor([tokens])).last_hidden_state[0]
        expected = m.reference(inputs_embeds=hidden[None, 2:3]).logits[0]
    (ours,) = m.run(attrs.evolve(part([0], m.pages(1), 0, 1), tokens=[-4]))
    agree(ours, expected)


def test_a_row_that_sees_nothing_gives_numbers_and_harms_nobody(m: Machine) -> None:
    tokens, pages = m.text(4), m.pages(4)
    blind = attrs.evolve(part(tokens, pages, 0, 4), mask=[[], [0, 1], [], [0, 4]])
    (ours,) = m.run(blind)
    assert bool(torch.isfinite(ours).all())


@pytest.mark.parametrize("rows", [1, 3])
def test_attention_of_a_row_that_sees_nothing_is_nought(rows: int) -> None:
    cache = KvCache(layers=1, pages=4, page_size=PAGE, heads=2, width=8)
    cache.keys.normal_()
    cache.values.normal_()
    blind = attrs.evolve(part([0] * 20, [1, 2], 20 - rows, 20), mask=[[]] * rows)
    arrays = decode(encode(Batch(1, 1, (), (blind, part([0] * 20, [1, 2], 19, 20)))))
    assert isinstance(arrays, BatchArrays)
    attended = attend(cache, 0, torch.randn(rows + 1, 4, 8), make_plan(arrays, [0, 1], PAGE))
    assert not attended[:rows].any()
    assert attended[rows:].all()


def test_a_bad_request_answers_for_itself_alone(m: Machine) -> None:
    tokens = m.text(6)
    good = part(tokens, m.pages(6), 0, 6)
    bad = attrs.evolve(good, pages=[10_000])
    before, refused, after = m.answers(good, bad, good)
    assert refused.error == "a page does not exist"
    assert before == after
    assert before.error is None


def test_logits_that_are_no_numbers_fail_one_request(m: Machine) -> None:
    """The embedding slot of one request is spoilt; its neighbour is not."""
    good = part(m.text(3), m.pages(3), 0, 3)
    (expected,) = m.answers(good)
    m.executor._embeddings[7] = float("nan")
    spoilt_pages = m.pages(1)
    spoilt = attrs.evolve(part([0], spoilt_pages, 0, 1), tokens=[-8])
    refused, fine = m.answers(spoilt, good)
    m.executor._decoder.memory.keys[:] = 0
    m.executor._decoder.memory.values[:] = 0
    assert refused.error == "the logits are not finite"
    assert fine == expected


def test_a_seed_draws_the_same_token_alone_and_in_any_batch(m: Machine) -> None:
    requests = []
    for seed in range(12):
        tokens = m.text(1 + 5 * seed)
        output = OutputRow(len(tokens) - 1, SamplerKind.TOP_P, 1.5, top_p=0.95)
        whole = part(tokens, m.pages(len(tokens)), 0, len(tokens))
        requests.append(attrs.evolve(whole, outputs=[output], seed=seed))
    alone = [m.answers(request)[0] for request in requests]
    assert len({answer.tokens for answer in alone}) > 6
    m.draw.shuffle(order := list(range(12)))
    together = m.answers(*(requests[index] for index in order))
    assert [alone[index] for index in order] == list(together)


def test_greedy_is_the_argmax_and_distributions_are_the_softmax(m: Machine) -> None:
    tokens = m.text(9)
    request = attrs.evolve(
        part(tokens, m.pages(9), 0, 9),
        outputs=[
            OutputRow(8, SamplerKind.DISTRIBUTION, 0.7, top_k=5),
            OutputRow(3, SamplerKind.TOP_K_TOP_P, 0.0, top_k=9, top_p=0.3),
            OutputRow(8, SamplerKind.DISTRIBUTION, 1.0),
        ],
    )
    (answer,) = m.answers(request)
    expected = m.expect(tokens)
    best = (expected[8] / 0.7).softmax(-1).topk(5)
    assert answer.tokens == (int(expected[3].argmax()),)
    assert answer.distributions[0][0] == best.indices.tolist()
    assert answer.distributions[0][1] == pytest.approx(best.values.tolist(), abs=1e-4)
    assert len(answer.distributions[1][0]) == LIMITS.distribution_max


def test_tokens_are_of_the_rows_that_they_are_asked_for(m: Machine) -> None:
    """Whether in the order of the rows, backwards, twice, or of some rows only."""
    tokens = m.text(6)
    whole = part(tokens, m.pages(6), 0, 6)
    (answer,) = m.answers(whole)
    assert len(set(answer.tokens)) > 1
    for rows in ((5, 4, 3, 2, 1, 0), (0, 0, 1, 1, 5, 5), (1, 4), (5, 4, 3, 2, 1, 0, 0)):
        outputs = [whole.outputs[row] for row in rows]
        (ours,) = m.answers(attrs.evolve(whole, outputs=outputs))
        assert ours.tokens == tuple(answer.tokens[row] for row in rows)


def test_of_two_rows_one_may_be_asked_for_twice_and_the_other_not(m: Machine) -> None:
    texts = [m.text(1), m.text(1)]
    one, other = (part(text, m.pages(1), 0, 1) for text in texts)
    (expected,) = m.answers(one)
    twice = attrs.evolve(one, outputs=[*one.outputs] * 2)
    ours, nothing = m.answers(twice, attrs.evolve(other, outputs=[]))
    assert (ours.tokens, nothing.tokens) == (expected.tokens * 2, ())


def test_what_is_adjusted_or_told_of_changes_no_neighbour(m: Machine) -> None:
    tokens = m.text(9)
    whole = part(tokens, m.pages(9), 0, 9)
    plain = OutputRow(8, SamplerKind.MULTINOMIAL, 0.0)
    (first,) = m.answers(attrs.evolve(whole, outputs=[plain]))
    banned = pack_adjustments([(first.tokens[0], 1.0, -ADDEND_MAX)])
    told = attrs.evolve(plain, logprobs=4)
    outputs = [plain, told, attrs.evolve(told, adjustments=banned), plain]
    (answer,) = m.answers(attrs.evolve(whole, outputs=outputs))
    logprobs = m.run(whole)[0][8].double().log_softmax(-1)
    order = logprobs.argsort(descending=True, stable=True).tolist()
    assert answer.tokens == (order[0], order[0], order[1], order[0])
    assert [ids for ids, _ in answer.distributions] == [
        [order[0], *order[:3]],
        [order[1], *order[:3]],
    ]
    for ids, values in answer.distributions:
        assert values == pytest.approx(logprobs[ids].tolist(), abs=1e-4)
