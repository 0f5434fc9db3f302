"""Constraints on real arithmetic: what is written always parses, and costs no row beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from gpu_worker.constraints import Constraints
from gpu_worker.executor import ModelExecutor, facts_of
from gpu_worker.models.config import DecoderConfig
from gpu_worker.models.llama import read_parameters
from gpu_worker.weights import Weights
from gpu_worker.wire import (
    Batch,
    BatchArrays,
    OutputRow,
    Request,
    SamplerKind,
    WorkerLimits,
    decode,
    encode,
)
from pie_trio.client import open_client
from tests.support.kernels import kernels
from tests.support.served import serving
from tests.support.worker_models import tiny_model
from tests.test_constraints_worker import END, lesson, written

LIMITS = WorkerLimits(16, 1 << 24, 64, 8, 64, 32)
TEMPERATURES = ("0", "0.7", "1.5")
SEEDS = range(8)


@pytest.mark.parametrize(
    ("kind", "numeric"), [("torch", "bf16"), ("portable", "bf16"), ("portable", "int8")]
)
def test_every_numeric_draws_the_likeliest_of_what_is_allowed(
    kind: str, numeric: str, tmp_path: Path
) -> None:
    model = tiny_model(tmp_path, "llama" if numeric == "bf16" else "blocks")
    config = DecoderConfig.read(model)
    facts = facts_of("tiny", config, LIMITS, kind)
    parameters = read_parameters(config, Weights(model))
    decoder = kernels(kind, numeric).decoder(config, parameters, facts.pages, LIMITS.page_size)
    executor = ModelExecutor(facts, decoder, Constraints(model / "tokenizer.json", 264))

    def request(page: int, kind: SamplerKind, text: bytes, top_k: int = 0) -> Request:
        output = OutputRow(2, kind, 0.0, top_k=top_k, written=text)
        return Request([70, 71, page], [0, 1, 2], [page], 3, None, (output,), (), 0)

    texts = [written(1), written(1, "ab"), b""]
    requests = [request(page, SamplerKind.MULTINOMIAL, text) for page, text in enumerate(texts)]
    requests += [
        request(page, SamplerKind.DISTRIBUTION, b"", LIMITS.distribution_max) for page in range(3)
    ]
    arrays = decode(encode(Batch(1, 1, (), requests, lesson("[ab]{2}[cd]?"))))
    assert isinstance(arrays, BatchArrays)
    answers = executor.execute(arrays).answers
    assert [answer.error for answer in answers] == [None] * 6
    for place, allowed in enumerate(([*b"ab"], [*b"cd", END], range(264))):
        (token,), ((ids, _),) = answers[place].tokens, answers[place + 3].distributions
        listed = [each for each in ids if each in allowed]
        assert token in allowed
        assert not listed or token == listed[0]
    assert [answer.is_closed for answer in answers] == [False, True] + [False] * 4


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("configuration")) as where:
        yield where


async def run_all(url: str, program: str, runs: list[tuple[str, ...]]) -> list[Any]:
    """All of them at the same time; what each returns."""
    found: dict[int, Any] = {}

    async with open_client(url) as client, trio.open_nursery() as nursery:

        async def one(place: int, arguments: tuple[str, ...]) -> None:
            instance = await client.launch(program, arguments=list(arguments))
            found[place] = json.loads(await instance.result())

        for place, arguments in enumerate(runs):
            nursery.start_soon(one, place, arguments)
    return [found[place] for place in range(len(runs))]


@pytest.mark.model
async def test_json_under_a_schema_always_parses_and_is_valid_or_says_that_it_was_cut(
    url: str,
) -> None:
    runs = [
        ("--temperature", heat, "--seed", str(seed), "--max-tokens", str(64 if seed % 4 else 12))
        for heat in TEMPERATURES
        for seed in SEEDS
    ]
    results = await run_all(url, "json-schema", runs)
    for (*_, most), result in zip(runs, results, strict=True):
        if "cut_off" in result:
            assert result["cut_off"].startswith('{"name": "'[: len(result["cut_off"])])
            assert most == "12"
            continue
        value = result["value"]
        assert list(value) == ["name", "age", "hobbies"]
        assert re.fullmatch("[A-Z][a-z]{1,15}", value["name"])
        assert type(value["age"]) is int
        assert 0 <= value["age"] <= 120
        assert 1 <= len(value["hobbies"]) <= 3
        assert {*value["hobbies"]} <= {"chess", "music", "sport", "books"}
    assert sum("value" in result for result in results) >= len(SEEDS) * 2


@pytest.mark.model
async def test_an_expression_is_matched_at_every_temperature(url: str) -> None:
    pattern = r"(Paris|London|Rome) has [1-9][0-9]{0,2} (churches|bridges), I guess\."
    runs = [
        ("--regex", pattern, "--temperature", heat, "--seed", str(seed), "--max-tokens", "40")
        for heat in TEMPERATURES
        for seed in SEEDS
    ]
    for result in await run_all(url, "constrained-decoding", runs):
        assert result["is_complete"]
        assert re.fullmatch(pattern, result["text"])


@pytest.mark.model
async def test_text_under_a_grammar_parses_or_is_the_beginning_of_what_does(url: str) -> None:
    runs = [
        ("--temperature", heat, "--seed", str(seed), "--max-tokens", "48")
        for heat in TEMPERATURES
        for seed in range(4)
    ]
    for result in await run_all(url, "constrained-decoding", runs):
        assert result["text"].startswith("{")
        if result["is_complete"]:
            assert isinstance(json.loads(result["text"]), dict)
        else:
            with pytest.raises(ValueError, match=r".+"):
                json.loads(result["text"])
