"""Streams, passes and guesses agree on the real model, exact and in eight bits.

What they agree on obeys: texts match their constraint, a banned token never comes, and the
log-probabilities of streams are those of distributions.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from pie_trio.client import open_client
from pie_trio.testing.raw_client import MANIFEST
from tests.support.served import serving

pytestmark = [pytest.mark.model, pytest.mark.slow]

PATTERN = r"(A|The)( [a-z]{3,9})+\."
BEGUN = r"(A|The)( [a-z]{0,9})*\.?"
AGREEING = """
from inferlet import Constraint, Context, Sampler, get_model


async def written(trunk, sampler, constraint):
    tokens_max, streamed = 16, []

    def draft(tokens):
        # Right but for every fourth place.
        right = streamed[0].tokens[len(tokens) - len(trunk.tokens):][:3]
        return [token if place % 4 else 5 for place, token in enumerate(right, len(tokens))]

    for way in ({}, {"before_step": lambda: None}, {"drafter": draft}):
        streamed.append(trunk.fork().generate(tokens_max, sampler, constraint=constraint, **way))
        await streamed[-1].collect()
    return [[each.text, each.tokens, [told.logprob for told in each.logprobs]] for each in streamed]


async def main(args):
    trunk = Context(get_model())
    trunk.fill_user("Write a short sentence about animals.")
    await trunk.flush()
    likely = await trunk.fork().decode_step_dist()
    banned = likely.ids[0]
    penalties = {"repetition_penalty": 1.4, "frequency_penalty": 0.5, "presence_penalty": 0.3}
    samplers = [
        Sampler(logprobs=0),
        Sampler(1.0, seed=3, logprobs=0, **penalties),
        Sampler(0.9, top_k=40, seed=4, logprobs=0, bias={banned: -100.0}, **penalties),
    ]
    sentence = Constraint.regex(trunk.model, args[0])
    free = [await written(trunk, sampler, None) for sampler in samplers]
    bound = [await written(trunk, sampler, sentence) for sampler in samplers]
    return {"free": free, "bound": bound, "banned": banned, "share": likely.probabilities[0]}
"""


@pytest.mark.parametrize("numeric", ["bf16", "int8"])
async def test_streams_passes_and_guesses_obey_alike_in_every_numeric(
    numeric: str, tmp_path: Path
) -> None:
    with serving(tmp_path, "--numeric", numeric) as url:
        async with open_client(url) as client:
            manifest = MANIFEST.format(name="agreeing")
            await client.install(manifest, AGREEING.encode(), overwrite=True)
            instance = await client.launch("agreeing", arguments=[PATTERN])
            found: dict[str, Any] = json.loads(await instance.result())
    for streamed, passed, guessed in (*found["free"], *found["bound"]):
        assert streamed[:2] == passed[:2] == guessed[:2]
        assert streamed[2] == pytest.approx(passed[2], abs=1e-3)
        assert streamed[2] == pytest.approx(guessed[2], abs=1e-3)
        assert len(streamed[2]) == len(streamed[1])
    likeliest = found["free"][0][0]
    assert likeliest[1][0] == found["banned"]
    assert likeliest[2][0] == pytest.approx(math.log(found["share"]), abs=1e-3)
    for text, tokens, _ in (found["free"][2][0], found["bound"][2][0]):
        assert text
        assert found["banned"] not in tokens
    for text, *_ in (ways[0] for ways in found["bound"]):
        assert re.fullmatch(BEGUN, text), text
