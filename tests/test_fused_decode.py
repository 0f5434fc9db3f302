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
from tests.test_inferlet_pretend import value_of, write
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
    if TOKEN_BY_TOKEN:
        text = "".join([piece async for piece in generation])
    else:
        text = await generation.collect()
    told = [[each.token, each.logprob, each.likeliest] for each in generation.logprobs]
    found.append([text, generation.tokens, len(context.tokens), context.sequence.held, told])
return found
"""


def cases_of(start: int) -> str:
    """Each sampler once, with budgets and stops that turn with the start; the greatest budget is
    more than the pages of one stream hold."""
    draw = random.Random(start)
    stops = ("None", "stop_tokens([70, 71, 72])", "ends_with([80])", "ends_with([81, 82])")
    return "".join(
        f"({sampler}, {draw.choice((1, 2, 16, 17, 33, 40, 160))}, {draw.choice(stops)}),"
        for sampler in SAMPLERS
    )


@pytest.mark.parametrize("start", [1, 15, 16, 17, 40])
async def test_the_model_alone_writes_what_passes_write(start: int, tmp_path: Path) -> None:
    body = f"{FILLED}\nBY_PASSES = args == ['passes']\nTOKEN_BY_TOKEN = args == ['tokens']\n"
    body += f"CASES = [{cases_of(start)}]\n"
    body += BODY.format(start=start)
    values = []
    for arguments in ((), ("tokens",), ("passes",)):
        async with open_world(tmp_path / "home") as world:
            end = await world.run(write(tmp_path, body), *arguments)
        assert end.error is None, end.error
        values.append(json.loads(end.value))
    for sampler, alone, token_by_token, by_passes in zip(SAMPLERS, *values, strict=True):
        assert alone == by_passes, sampler
        assert token_by_token == by_passes, sampler
        assert bool(alone[4]) == ("logprobs" in sampler and bool(alone[1]))


async def test_a_stop_that_only_the_program_knows_may_fall_anywhere_in_a_chunk(
    tmp_path: Path,
) -> None:
    """What was decoded behind it is forgotten."""
    body = f"""{FILLED}
found = []
for count in (1, 2, 16, 31, 32, 33, 50, 64, 65):
    ways = []
    for way in ({{}}, {{"before_step": lambda: None}}):
        context = filled(range(60, 77))
        stop = StopCondition(lambda tokens: 0 if len(tokens) == count else None)
        generation = context.generate(200, Sampler(0.9, seed=5), stop, **way)
        await generation.collect()
        ways.append([generation.tokens, context.sequence.held])
        context.fill_tokens([61])
        again = context.generate(40, Sampler(0.9, seed=6), max_tokens(40), **way)
        await again.collect()
        ways[-1] += [again.tokens, await steps(context, 3)]
    found.append([count, *ways])
return found
"""
    for count, alone, by_passes in await value_of(tmp_path, body):
        assert len(alone[0]) == count
        assert alone == by_passes


async def test_a_stop_sequence_may_begin_in_one_stream_and_end_in_the_next(tmp_path: Path) -> None:
    """A stream ends where its pages do; whoever starts the next one knows what was before."""
    body = f"""{FILLED}
from inferlet.decoding import RESERVE_PAGES
end = (2 + RESERVE_PAGES) * 16 - 16  # tokens that the first stream writes behind a prompt of 17
async def written(stop):
    generation = filled(range(60, 77)).generate(end + 20, Sampler(0.9, seed=5), stop)
    await generation.collect()
    return generation.tokens
whole = await written(max_tokens(end + 20))
pairs = [whole[place : place + 2] for place in range(end + 19)]
return [[place, pairs.index(pairs[place]), len(await written(ends_with(pairs[place])))]
        for place in range(end - 10, end + 19)]
"""
    found = await value_of(tmp_path, body)
    for _, first, length in found:
        assert length == first
    assert any(place == first for place, first, _ in found)


async def test_what_earlier_streams_wrote_counts_for_the_penalties_of_the_next(
    tmp_path: Path,
) -> None:
    body = f"""{FILLED}
from inferlet.decoding import RESERVE_PAGES
count = (2 + RESERVE_PAGES) * 16 + 30  # more than the first stream writes behind a prompt of 17
found = []
for sampler in (
    Sampler(0.9, seed=7, frequency_penalty=0.7),
    Sampler(0.9, seed=7, presence_penalty=1.7),
    Sampler(repetition_penalty=1.5),
):
    ways = []
    for way in ({{}}, {{"before_step": lambda: None}}):
        generation = filled(range(60, 77)).generate(count, sampler, max_tokens(count), **way)
        await generation.collect()
        ways.append(generation.tokens)
    found.append([count, *ways])
return found
"""
    for count, alone, by_passes in await value_of(tmp_path, body):
        assert len(alone) == count
        assert alone == by_passes


async def test_a_fork_taken_while_the_model_decodes_ahead_holds_what_was_given_out(
    tmp_path: Path,
) -> None:
    body = f"""{FILLED}
found = []
for place in (1, 15, 16, 17, 32, 40):
    ways = []
    for way in ({{}}, {{"before_step": lambda: None}}):
        context, twins = filled(range(60, 77)), []
        generation = context.generate(60, Sampler(0.9, seed=5), max_tokens(60), **way)
        async for _ in generation:
            if len(generation.tokens) >= place and not twins:
                twins.append(context.fork())
        before = list(twins[0].tokens)
        ways.append([generation.tokens, before, await steps(twins[0], 20), await steps(context, 3)])
    found.append(ways)
return found
"""
    found = await value_of(tmp_path, body)
    for alone, by_passes in found:
        assert alone == by_passes
    assert len({str(alone[0]) for alone, _ in found}) == 1, "a fork changes nothing of the text"


async def test_with_each_chunk_the_context_is_where_passes_would_have_brought_it(
    tmp_path: Path,
) -> None:
    """Whoever leaves then, or forks, goes on from the tokens of what was given out."""
    body = f"""{FILLED}
found = []
for leaves in (False, True):
    context = filled(range(60, 77))
    generation = context.generate(60, Sampler(0.9, seed=5), max_tokens(60))
    twins = []
    async for _ in generation.chunks():
        twins.append((len(generation.tokens), context.fork()))
        if leaves:
            break
    for count, twin in [*twins, (len(generation.tokens), context)]:
        other = filled(range(60, 77))
        await other.generate(count, Sampler(0.9, seed=5), max_tokens(count), **PASSES).collect()
        ways = [[list(one.tokens), await steps(one, 20)] for one in (twin, other)]
        found.append([count, *ways])
return found
"""
    body = 'PASSES = {"before_step": lambda: None}\n' + body
    found = await value_of(tmp_path, body)
    for _, by_chunks, by_passes in found:
        assert by_chunks == by_passes
    counts = [count for count, _, _ in found]
    assert 2 < len(counts) < 60, "several tokens are a piece"
    assert counts[-1] < 60, "the second time it was left after the first piece"


async def test_no_character_is_split_wherever_a_chunk_ends(tmp_path: Path) -> None:
    body = """
constraint = Constraint.regex(get_model(), "(\u00e4|\u20ac|\U0001d11e){60}")
context = Context(get_model())
context.fill("go")
generation = context.generate(400, Sampler(1.0, seed=3), constraint=constraint)
pieces = [piece async for piece in generation.chunks()]
return [pieces, generation.text, len(generation.tokens)]
"""
    pieces, text, tokens = await value_of(tmp_path, body)
    assert len(text) == 60
    assert tokens > 120, "a character is several tokens"
    assert "".join(pieces) == text
    assert all(pieces)
    assert "\ufffd" not in text
