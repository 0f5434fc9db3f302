"""Sequences that the model decodes by itself: the same tokens as by passes, and every end.

By passes the penalties are computed in the program, in a stream by the host; that both agree is
what is compared here, over samplers, seeds, stop conditions and budgets.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.test_inferlet_context import FILLED
from tests.test_inferlet_pretend import write
from tests.world import open_world

SAMPLERS = (
    "Sampler.greedy()",
    "Sampler.multinomial(0.7)",
    "Sampler.for_top_k(0.9, 5)",
    "Sampler.for_top_p(1.1, 0.8)",
    "Sampler.for_min_p(0.8, 0.1)",
    "Sampler.for_top_k_top_p(0.8, 9, 0.9)",
    "Sampler(seed=1, repetition_penalty=1.3)",
    "Sampler(0.9, seed=7, frequency_penalty=0.3)",
    "Sampler(0.9, top_k=40, seed=7, presence_penalty=-0.7, logprobs=0)",
    "Sampler(repetition_penalty=1.1, frequency_penalty=0.1, presence_penalty=0.7, logprobs=3)",
    "Sampler(0.5, min_p=0.05, bias={70: -1.7, 71: 0.1, 3: 2.3}, logprobs=20)",
    "Sampler(1.2, seed=2**64 - 1, repetition_penalty=0.9, bias={90: -100.0}, logprobs=1)",
)
BODY = """
context = filled(range(60, 60 + {start}))
found = []
for sampler, count, stop in CASES:
    context.fill_tokens([61, 62])
    if BY_PASSES:
        generation = context.generate(count, sampler, stop, before_step=lambda: None)
    else:
        generation = context.generate(count, sampler, stop)
    text = await generation.collect()
    told = [[each.token, each.logprob, each.likeliest] for each in generation.logprobs]
    found.append([text, generation.tokens, len(context.tokens), context.sequence.held, told])
return found
"""


def cases_of(start: int) -> str:
    """Each sampler once, with budgets and stops that turn with the start."""
    draw = random.Random(start)
    stops = ("None", "stop_tokens([70, 71, 72])", "ends_with([80])", "ends_with([81, 82])")
    return "".join(
        f"({sampler}, {draw.choice((1, 2, 16, 17, 33, 40, 90))}, {draw.choice(stops)}),"
        for sampler in SAMPLERS
    )


@pytest.mark.parametrize("start", [1, 15, 16, 17, 40])
async def test_the_model_alone_writes_what_passes_write(start: int, tmp_path: Path) -> None:
    body = f"{FILLED}\nBY_PASSES = args == ['passes']\nCASES = [{cases_of(start)}]\n"
    body += BODY.format(start=start)
    values = []
    for arguments in ((), ("passes",)):
        async with open_world(tmp_path / "home") as world:
            end = await world.run(write(tmp_path, body), *arguments)
        assert end.error is None, end.error
        values.append(json.loads(end.value))
    for sampler, alone, by_passes in zip(SAMPLERS, *values, strict=True):
        assert alone == by_passes, sampler
        assert bool(alone[4]) == ("logprobs" in sampler and bool(alone[1]))
