"""Constraints in real guests on a whole engine, with a pretend worker: the kit's side of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.test_inferlet_pretend import run_body, value_of
from tests.world import open_world

WORDS = "[a-f]{3,40}(x|yy)?"
BOTH_WAYS = f"""
constraint = Constraint.regex(get_model(), {WORDS!r})
trunk = Context(get_model())
trunk.fill(args[0])
found = []
penalties = {{"repetition_penalty": 1.3, "frequency_penalty": 0.2, "presence_penalty": 0.4}}
for temperature, more in ((0.0, {{}}), (1.0, {{}}), (0.9, {{**penalties, "bias": {{98: -2.0}}}})):
    sampler = Sampler(temperature, seed=int(args[1]), logprobs=1, **more)
    streamed = trunk.fork().generate(60, sampler, constraint=constraint)
    passed = trunk.fork().generate(60, sampler, before_step=lambda: None, constraint=constraint)
    guessed = trunk.fork().generate(
        60, sampler, drafter=lambda tokens: [97, 98, 122], constraint=constraint)
    texts = [await each.collect() for each in (streamed, passed, guessed)]
    assert constraint.is_complete(streamed.tokens)
    told = [[one.logprob for one in each.logprobs] for each in (streamed, passed, guessed)]
    found.append([*texts, told])
return found
"""


@pytest.mark.parametrize("seed", range(4))
async def test_streams_passes_and_guesses_write_the_same_text_under_a_constraint(
    seed: int, tmp_path: Path
) -> None:
    for streamed, passed, guessed, told in await value_of(tmp_path, BOTH_WAYS, "Once", str(seed)):
        assert re.fullmatch(WORDS, streamed)
        assert streamed == passed == guessed
        assert told[0] == told[1] == told[2]
        assert len(told[0]) >= 3


async def test_a_text_longer_than_the_pages_of_one_stream_goes_on_under_its_constraint(
    tmp_path: Path,
) -> None:
    body = """
constraint = Constraint.regex(get_model(), "([a-c]{9}-){20}end")
context = Context(get_model())
context.fill("Go")
return [await context.generate(400, Sampler(1.0), constraint=constraint).collect()]
"""
    (text,) = await value_of(tmp_path, body)
    assert re.fullmatch("([a-c]{9}-){20}end", text)


async def test_a_context_goes_on_behind_a_constrained_text(tmp_path: Path) -> None:
    body = """
constraint = Constraint.lark(get_model(), 'start: "yes" | "no"')
context = Context(get_model())
context.fill("Is it?")
before = len(context.tokens)
text = await context.generate(8, Sampler(1.0), constraint=constraint).collect()
held = context.model.tokenizer.decode(context.tokens[before:])
return [text, held, await context.decode_step()]
"""
    text, held, token = await value_of(tmp_path, body)
    assert text == held
    assert text in ("yes", "no")
    assert isinstance(token, int)


async def test_a_custom_sampler_sees_only_what_is_allowed(tmp_path: Path) -> None:
    body = """
seen = []
def choose(likely):
    seen.append(sorted(likely.ids))
    return likely.ids[-1]
context = Context(get_model())
context.fill("Go")
constraint = Constraint.regex(get_model(), "[ab][cd]e")
text = await context.generate(8, Sampler.custom(choose), constraint=constraint).collect()
return [text, seen]
"""
    text, seen = await value_of(tmp_path, body)
    assert seen == [[*b"ab"], [*b"cd"], [*b"e"]]
    assert re.fullmatch("[ab][cd]e", text)


async def test_a_beam_search_finds_the_likeliest_text_that_is_allowed(tmp_path: Path) -> None:
    """Against all texts there are: each one's score is the sum of what its passes say."""
    body = """
import itertools, math
constraint = Constraint.regex(get_model(), "[a-c][d-e]?[a-c]")
trunk = Context(get_model())
trunk.fill("Go")
scores = {}
for letters in itertools.product("abc", ("d", "e", ""), "abc"):
    context, written, score = trunk.fork(), [], 0.0
    for token in [*"".join(letters).encode(), constraint.end]:
        likely = await context.decode_step_dist(1.0, None, constraint, written)
        score += math.log(likely.probability(token))
        context.fill_tokens([token])
        written.append(token)
    scores["".join(letters)] = score
found = []
for width in (1, 27):
    best = await trunk.beam_search(width, 9, constraint=constraint)
    text = trunk.model.tokenizer.decode(best.tokens)
    found.append([text, best.score, list(best.context.tokens) == [*trunk.tokens, *best.tokens]])
return [scores, found]
"""
    scores, (narrow, wide) = await value_of(tmp_path, body)
    assert wide[0] == max(scores, key=lambda text: scores[text])
    for text, score, has_text in (narrow, wide):
        assert abs(scores[text] - score) < 1e-4
        assert has_text


async def test_matchers_branch(tmp_path: Path) -> None:
    body = """
matcher = Constraint.regex(get_model(), "ab?c").matcher()
matcher.advance([97])
twin = matcher.fork()
twin.advance([98])
try:
    twin.advance([98])
    refused = False
except ValueError:
    refused = True
twin.advance([99])
return [matcher.may_end, matcher.is_closed, refused, twin.may_end, twin.is_closed]
"""
    assert await value_of(tmp_path, body) == [False, False, True, True, True]


REFUSED = {
    "a malformed expression": ("Constraint.regex(model, 'a(')", "ValueError", "unclosed group"),
    "a malformed schema": ("Constraint.json_schema(model, '{')", "ValueError", "no JSON"),
    "a long grammar": ("Constraint.lark(model, 'x' * 70_000)", "ValueError", "grammar_bytes"),
    "a costly schema": (
        "Constraint.json_schema(model, {'multipleOf': 123456789})",
        "ValueError",
        "grammar_multiple_max",
    ),
    "very many": (
        "[Constraint.regex(model, f'a{i}') for i in range(10_000)]",
        "BudgetExceeded",
        "guest_held_bytes",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_refused_is_an_exception_that_says_why(name: str, tmp_path: Path) -> None:
    expression, kind, why = REFUSED[name]
    body = f"""
model = get_model()
try:
    kept = {expression}
except Exception as error:
    return [type(error).__name__, str(error)]
"""
    found, text = await value_of(tmp_path, body)
    assert found == kind
    assert why in text


async def test_what_a_guest_drops_is_not_held_any_more(tmp_path: Path) -> None:
    body = """
model = get_model()
for i in range(3000):
    Constraint.regex(model, f"a{i % 7}").matcher()
return "done"
"""
    end, _ = await run_body(tmp_path, body)
    assert end.value == "done"


@pytest.mark.parametrize("seed", range(3))
async def test_json_under_a_schema_parses_or_says_that_it_was_cut_off(
    seed: int, tmp_path: Path
) -> None:
    arguments = ("--temperature", "1", "--seed", str(seed), "--max-tokens")
    async with open_world(tmp_path) as world:
        whole = await world.run("json-schema", *arguments, "200")
        cut = await world.run("json-schema", *arguments, "20")
    value = json.loads(whole.value)["value"]
    assert set(value) == {"name", "age", "hobbies"}
    assert 0 <= value["age"] <= 120
    assert '{"name": "' in json.loads(cut.value)["cut_off"]
