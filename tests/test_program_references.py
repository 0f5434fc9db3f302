"""Programs on the real model against references that share no code with them.

The reference is transformers on the same weights, under a mask that is written down here, with the
whole text computed anew at every step.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer

from pie_trio.client import open_client
from pie_trio.testing.raw_client import MANIFEST
from tests.support.served import serving
from tests.support.worker_models import default_model

pytestmark = [pytest.mark.model, pytest.mark.slow]

# (token that looks, token that is looked at) -> whether it is seen; causality comes on top.
Sees = Callable[[int, int], bool]
STORY = "Tell me a long story about a ship that sails around the world."


class Reference:
    """Greedy and beam decoding by whole forwards."""

    def __init__(self) -> None:
        directory = default_model()
        load: Any = transformers.AutoModelForCausalLM.from_pretrained
        self._model = load(directory, dtype=torch.float32, attn_implementation="sdpa").eval()
        self._tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self.template = transformers.AutoTokenizer.from_pretrained(directory)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=False)
        return text

    def chat(self, prompt: str) -> list[int]:
        """A user's message and the opening of the model's turn."""
        messages = [{"role": "user", "content": prompt}]
        text = self.template.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        return self.encode(text)

    @torch.inference_mode()
    def logits(self, tokens: list[int], sees: Sees) -> torch.Tensor:
        """What follows the last token."""
        count = len(tokens)
        hidden = [[not (k <= q and sees(q, k)) for k in range(count)] for q in range(count)]
        mask = torch.zeros(1, 1, count, count).masked_fill(torch.tensor(hidden), float("-inf"))
        answer = self._model(torch.tensor([tokens]), attention_mask=mask, use_cache=False)
        row: torch.Tensor = answer.logits[0, -1]
        return row

    def greedy(self, tokens: list[int], count: int, sees: Sees) -> list[int]:
        tokens = list(tokens)
        start = len(tokens)
        while len(tokens) < start + count:
            tokens.append(int(self.logits(tokens, sees).argmax()))
        return tokens[start:]

    def beam(self, tokens: list[int], width: int, count: int, end: int) -> tuple[list[int], float]:
        """The best continuation, without its end token."""
        beams: list[tuple[float, list[int]]] = [(0.0, [])]

        def is_done(added: list[int]) -> bool:
            return len(added) >= count or added[-1:] == [end]

        while not is_done(beams[0][1]):
            options = [beam for beam in beams if is_done(beam[1])]
            for score, added in beams:
                if not is_done(added):
                    shares = self.logits(tokens + added, lambda q, k: True).log_softmax(-1)
                    best = shares.topk(width)
                    options += [
                        (score + share, [*added, token])
                        for share, token in zip(
                            best.values.tolist(), best.indices.tolist(), strict=True
                        )
                    ]
            beams = sorted(options, key=lambda option: -option[0])[:width]
        score, added = beams[0]
        return [token for token in added if token != end], score


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("configuration")) as where:
        yield where


async def run(url: str, program: str, *arguments: str) -> dict[str, Any]:
    async with open_client(url) as client:
        instance = await client.launch(program, arguments=list(arguments))
        returned: dict[str, Any] = json.loads(await instance.result())
    return returned


async def test_a_sink_and_a_window_write_what_a_masked_model_writes(
    url: str, reference: Reference
) -> None:
    sink, window, count = 16, 16, 64
    prompt = reference.chat(STORY)

    def sees(q: int, k: int) -> bool:
        return q < len(prompt) or k < sink or k > q - window

    sizes = ("--sink", str(sink), "--window", str(window), "--max-tokens", str(count))
    written = await run(url, "attention-sink", "--prompt", STORY, *sizes)
    assert written["text"] == reference.decode(reference.greedy(prompt, count, sees))


async def test_a_window_writes_what_a_masked_model_writes(url: str, reference: Reference) -> None:
    window, count = 16, 48
    sizes = ("--window", str(window), "--max-tokens", str(count))
    written = await run(url, "windowed-attention", "--prompt", STORY, *sizes)
    tokens = reference.encode(STORY)
    expected = reference.greedy(tokens, count, lambda q, k: k == 0 or k > q - window)
    assert written["text"] == reference.decode(expected)


async def test_a_hierarchy_writes_what_a_masked_model_writes(
    url: str, reference: Reference
) -> None:
    """Two children, then their parent, who sees them; then a question that sees all."""
    document = (
        "<town>By a river.<school>A red roof.</school><market>It opens at nine.</market></town>"
    )
    question, count = "Question: What has a red roof? Answer: The", 12
    texts = ["school: A red roof.\n", "market: It opens at nine.\n", "town: By a river.\n"]
    tokens: list[int] = []
    owner: list[int] = []
    for number, text in enumerate([*texts, question]):
        piece = reference.encode(text)
        tokens += piece
        owner += [number] * len(piece)
    owner += [3] * count
    allowed = {0: {0}, 1: {1}, 2: {0, 1, 2}, 3: {0, 1, 2, 3}}
    expected = reference.greedy(tokens, count, lambda q, k: owner[k] in allowed[owner[q]])
    arguments = ("--document", document, "--question", question, "--max-tokens", str(count))
    written = await run(url, "hierarchical-attention", *arguments)
    assert reference.decode(expected).startswith(written["text"])
    assert written["text"]


@pytest.mark.parametrize("width", [1, 3])
async def test_a_beam_search_finds_what_the_reference_finds(
    width: int, url: str, reference: Reference
) -> None:
    prompt = "Name three colours."
    found = await run(
        url, "beam-search", "--prompt", prompt, "--beams", str(width), "--max-tokens", "10"
    )
    end = reference.encode("<|im_end|>")[0]
    tokens, score = reference.beam(reference.chat(prompt), width, 10, end)
    assert found["tokens"] == tokens
    assert found["score"] == pytest.approx(score, abs=1e-2)


@pytest.mark.parametrize("program", ["jacobi-decoding", "speculative-decoding"])
async def test_guessing_programs_write_the_greedy_text(program: str, url: str) -> None:
    prompt = "Write the word yes five times, then the word no five times."
    arguments = ("--prompt", prompt, "--max-tokens", "48")
    async with open_client(url) as client:
        plain = await client.launch("text-completion-py", arguments=list(arguments))
        expected = await plain.result()
    guessed = await run(url, program, *arguments)
    assert guessed["text"] == expected
    assert guessed["passes"] < guessed["tokens"]


async def test_candidates_are_scored_as_the_reference_scores_them(
    url: str, reference: Reference
) -> None:
    prompt, candidates = "What is the capital of Italy?", ["Rome", "Milan", "Oslo"]
    options = [part for each in candidates for part in ("--candidate", each)]
    shares = await run(url, "output-validation", "--prompt", prompt, *options)
    end = reference.encode("<|im_end|>")
    weights = {}
    for candidate in candidates:
        tokens, score = reference.chat(prompt), 0.0
        for token in reference.encode(candidate) + end:
            score += float(reference.logits(tokens, lambda q, k: True).log_softmax(-1)[token])
            tokens.append(token)
        weights[candidate] = score
    likeliest = max(weights, key=lambda each: weights[each])
    assert max(shares, key=lambda each: shares[each]) == likeliest
    assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("program", "told"),
    [("prefix-caching", ["computed", "imported"]), ("modular-caching", [False, True])],
)
async def test_what_is_imported_writes_what_was_computed(
    program: str, told: list[object], url: str
) -> None:
    runs = [await run(url, program, "--max-tokens", "24") for _ in told]
    assert runs[0]["text"] == runs[1]["text"] != ""
    states = [each.get("prefix") or all(each["from_cache"].values()) for each in runs]
    assert states == told


PENALISED = """
import json
from inferlet import Context, Sampler, get_model

SAMPLERS = [
    Sampler(repetition_penalty=1.3, logprobs=2),
    Sampler(1.3, top_k=50, seed=5, frequency_penalty=0.4, presence_penalty=0.3, logprobs=0),
    Sampler(0.8, top_p=0.9, seed=6, bias={28: -50.0, 198: 1.5}, repetition_penalty=1.1),
]


async def main(args):
    context = Context(get_model())
    context.fill_user(args[0])
    await context.flush()
    found = []
    for sampler in SAMPLERS:
        for before_step in (None, lambda: None):
            written = context.fork().generate(24, sampler, before_step=before_step)
            await written.collect()
            told = [[each.logprob, *each.likeliest] for each in written.logprobs]
            found.append([written.tokens, told])
    return {"found": found}
"""


async def test_streams_and_passes_are_penalised_as_the_reference_penalises(
    url: str, reference: Reference
) -> None:
    prompt = "Name the days of the week, three times."
    async with open_client(url) as client:
        await client.install(MANIFEST.format(name="penalised"), PENALISED.encode(), overwrite=True)
    found = (await run(url, "penalised", prompt))["found"]
    for streamed, passed in zip(found[::2], found[1::2], strict=True):
        assert streamed == passed
    tokens, told = found[0]
    text = reference.chat(prompt)
    penalise = transformers.RepetitionPenaltyLogitsProcessor(1.3)
    for token, (logprob, *likeliest) in zip(tokens, told, strict=True):
        logits = reference.logits(text, lambda q, k: True)
        processed = penalise(torch.tensor([text]), logits[None].clone())[0]
        assert float(processed[token]) == pytest.approx(float(processed.max()), abs=1e-3)
        expected = logits.log_softmax(-1)
        assert logprob == pytest.approx(float(expected[token]), abs=1e-3)
        assert [value for _, value in likeliest] == pytest.approx(
            expected.topk(2).values.tolist(), abs=1e-3
        )
        text.append(token)
