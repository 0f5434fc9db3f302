"""Sequences that the model decodes by itself: the same tokens as by passes, and every end."""

from __future__ import annotations

import json
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
    found.append([text, generation.tokens, len(context.tokens), context.sequence.held])
return found
"""


@pytest.mark.parametrize("start", [1, 15, 16, 17, 40])
async def test_the_model_alone_writes_what_passes_write(start: int, tmp_path: Path) -> None:
    cases = "".join(
        f"({sampler}, {count}, {stop}),"
        for sampler, count, stop in zip(
            SAMPLERS,
            (40, 1, 17, 90, 16, 33),
            ("None", "None", "stop_tokens([70, 71, 72])", "None", "ends_with([80])", "None"),
            strict=True,
        )
    )
    body = f"{FILLED}\nBY_PASSES = args == ['passes']\nCASES = [{cases}]\n" + BODY.format(
        start=start
    )
    values = []
    for arguments in ((), ("passes",)):
        async with open_world(tmp_path / "home") as world:
            end = await world.run(write(tmp_path, body), *arguments)
        assert end.error is None, end.error
        values.append(json.loads(end.value))
    assert values[0] == values[1]
