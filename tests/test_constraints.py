"""Streams and passes under grammars, in the engine's real queues: same tokens, bounds, deaths."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

import attrs
import pytest
import trio

from gpu_worker.wire import OutputRow, SamplerKind
from pie_trio.config import Limits
from pie_trio.decode import Decode, DecodeDraft, DecodeRules, FinishReason
from pie_trio.errors import GuestFault, TooMany, WorkerLost
from pie_trio.messages import PageHandle, PassDraft
from pie_trio.services.grammar import Grammar, GrammarKind, Matcher
from pie_trio.services.grammar_book import GrammarBook
from pie_trio.testing.inline_worker import WorkerScript
from tests.scripted import KV, PAGE_SIZE, Scripted, open_scripted
from tests.support.handles import pretend_grammars
from tests.test_decode_streams import TEXT, ended
from tests.world import open_world

END = 258
PATTERN = "[a-f]{3,20}(x|yy)?"


async def start(
    one: Scripted, matcher: Matcher, *, temperature: float = 1.0, tokens_max: int = 60
) -> Decode:
    pages = await one.queue.allocate(KV, 5)
    output = OutputRow(len(TEXT) - 1, SamplerKind.MULTINOMIAL, temperature, written=matcher.written)
    draft = attrs.evolve(_draft(pages, TEXT, len(TEXT)), outputs=(output,), grammar=matcher.grammar)
    rules = DecodeRules(frozenset(), (), tokens_max)
    reserve = tuple(map(PageHandle, pages[1:]))
    return await one.queue.start(draft, DecodeDraft(reserve, rules, lambda: None))


def _draft(pages: list[int], tokens: list[int], total: int) -> PassDraft:
    return PassDraft(
        tokens=tuple(tokens),
        positions=tuple(range(total - len(tokens), total)),
        pages=tuple(map(PageHandle, pages[: -(-total // PAGE_SIZE)])),
        last_page_length=(total - 1) % PAGE_SIZE + 1,
        mask=None,
        outputs=(),
        embed_outputs=(),
    )


async def by_passes(one: Scripted, grammar: Grammar, temperature: float) -> list[int]:
    pages = await one.queue.allocate(KV, 5)
    matcher, found, new, is_closed = Matcher(grammar), list[int](), list(TEXT), False
    while not is_closed:
        kind = SamplerKind.MULTINOMIAL
        output = OutputRow(len(new) - 1, kind, temperature, written=matcher.written)
        draft = _draft(pages, new, len(TEXT) + len(found))
        draft = attrs.evolve(draft, outputs=(output,), grammar=grammar)
        new = list((await (await one.queue.submit(draft)).answer()).tokens)
        found += new
        is_closed = matcher.advance(new)
    await one.queue.deallocate(KV, pages)
    return found


async def regex(one: Scripted, pattern: str = PATTERN) -> Grammar:
    return await one.model.compile_grammar(GrammarKind.REGEX, pattern)


def text_of(tokens: list[int]) -> str:
    return bytes(token for token in tokens if token < 256).decode()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_a_stream_says_what_passes_say_and_stops_when_its_grammar_is_complete(
    temperature: float, tmp_path: Path
) -> None:
    async with open_world(tmp_path) as world:
        for number in range(20):
            async with open_scripted(world, number) as one:
                grammar = await regex(one)
                streamed = await ended(await start(one, Matcher(grammar), temperature=temperature))
            async with open_scripted(world, number) as again:
                passed = await by_passes(again, grammar, temperature)
            assert streamed.reason is FinishReason.STOP
            assert re.fullmatch(PATTERN, text_of(streamed.tokens))
            assert streamed.tokens == passed


async def test_a_stream_goes_on_from_where_its_matcher_stands(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, open_scripted(world, 1) as one:
        matcher = Matcher(await regex(one, "ab[cd]e"))
        assert not matcher.advance([*b"ab"])
        decode = await ended(await start(one, matcher))
        assert text_of(decode.tokens) in ("ce", "de")
        assert decode.reason is FinishReason.STOP
        assert not matcher.may_end


async def test_a_stream_that_is_cut_off_says_so(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, open_scripted(world, 1) as one:
        grammar = await regex(one, "[a-z]{50}")
        decode = await ended(await start(one, Matcher(grammar), tokens_max=10))
        assert (len(decode.tokens), decode.reason) == (10, FinishReason.LENGTH)
        last = await ended(await start(one, Matcher(grammar), tokens_max=50))
        assert (len(last.tokens), last.reason) == (50, FinishReason.STOP)


async def test_the_next_worker_is_taught_what_the_lost_one_knew(tmp_path: Path) -> None:
    script = WorkerScript(dies_before_batch=2)
    async with open_world(tmp_path, script=script) as world:
        async with open_scripted(world, 1) as one:
            lost = await ended(await start(one, Matcher(await regex(one))))
            assert (lost.reason, type(lost.failure)) == (FinishReason.FAILED, WorkerLost)
        with trio.fail_after(10):
            while world.model.generation is None:  # noqa: ASYNC110
                await trio.sleep(0.001)
        async with open_scripted(world, 2) as other:
            again = await ended(await start(other, Matcher(await regex(other))))
            assert again.reason is FinishReason.STOP
    taught = [batch.lesson for batch in script.batches if batch.lesson is not None]
    assert [lesson.grammars[0][0] for lesson in taught] == [1, 1]
    assert script.started == 2


async def test_a_worker_that_forgets_under_many_grammars_is_taught_again(tmp_path: Path) -> None:
    limits = Limits(grammars_per_worker=2)
    script = WorkerScript()
    opening = open_world(tmp_path, limits=limits, script=script)
    async with opening as world, open_scripted(world, 1) as one:
        for pattern in ("a{3}", "b{3}", "c{3}", "a{3}"):
            decode = await ended(await start(one, Matcher(await regex(one, pattern))))
            assert text_of(decode.tokens) == pattern[0] * 3
    lessons = [batch.lesson for batch in script.batches if batch.lesson is not None]
    assert [lesson.grammars[0][0] for lesson in lessons] == [1, 2, 3, 1]
    assert [lesson.forgotten for lesson in lessons] == [(), (), (1,), (2,)]


async def test_a_text_that_its_grammar_forbids_fails_its_pass_alone(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, open_scripted(world, 1) as one:
        matcher = Matcher(await regex(one, "a+"))
        matcher.written += b"z\0\0\0"  # as no guest can make it
        decode = await ended(await start(one, matcher))
        assert decode.reason is FinishReason.FAILED
        assert "constraint" in str(decode.failure)
        good = await ended(await start(one, Matcher(await regex(one, "a{3}"))))
        assert text_of(good.tokens) == "aaa"


def test_a_book_never_forgets_what_its_batch_needs() -> None:
    grammars = pretend_grammars()
    all_of = [grammars.compile(GrammarKind.REGEX, f"{c}+", 264) for c in "abcdef"]
    book, known = GrammarBook((END,), grammars.bounds, 2), set[int]()
    chance = random.Random(1)
    for _ in range(200):
        used = chance.sample(all_of, chance.randint(1, 4))
        lesson = book.lesson([*used, None])
        if lesson is not None:
            known = (known | {number for number, _ in lesson.grammars}) - {*lesson.forgotten}
        assert {grammar.number for grammar in used} <= known
        assert len(known) <= 4


def test_a_matcher_refuses_what_is_not_allowed_and_is_as_before() -> None:
    matcher = Matcher(pretend_grammars().compile(GrammarKind.REGEX, "ab?", 264))
    before = matcher.written
    with pytest.raises(GuestFault, match="token 120 at 1"):
        matcher.advance([ord("a"), ord("x")])
    assert matcher.written == before
    twin = matcher.fork()
    assert not matcher.advance([ord("a")])
    assert matcher.may_end
    assert matcher.advance([ord("b")])
    assert not twin.may_end
    assert not twin.advance([ord("a")])


def can_follow(matcher: Matcher, token: int) -> bool:
    try:
        matcher.fork().advance([token])
    except GuestFault:
        return False
    return True


ATTACKS = {
    "repetition": (GrammarKind.REGEX, "(a{1000}){1000}b"),
    "nested repetition": (GrammarKind.REGEX, "((a{1,100}){1,100}){1,100}"),
    "ambiguity": (GrammarKind.REGEX, "(a|aa)+" * 40 + "b"),
    "states": (GrammarKind.REGEX, "[ab]*a[ab]{200}c" * 20),
    "classes": (GrammarKind.REGEX, r"(\p{L}{1,500}\w{1,500}){1,100}x"),
    "alternation": (GrammarKind.REGEX, "|".join(f"w{i * 7919 % 99991:05d}" for i in range(9000))),
    "no text": (GrammarKind.REGEX, r"[^\x00-\U0010ffff]"),
    "bad range": (GrammarKind.REGEX, r"[\xff-\xfe]"),
    "look-around": (GrammarKind.REGEX, "(?=a)b"),
    "surrogates": (GrammarKind.JSON_SCHEMA, r'{"const": "\ud800"}'),
    "depth": (GrammarKind.JSON_SCHEMA, '{"items":' * 1000 + "{}" + "}" * 1000),
    "python's depth": (GrammarKind.JSON_SCHEMA, "[" * 30_000),
    "multiple": (GrammarKind.JSON_SCHEMA, '{"type": "integer", "multipleOf": 1000003}'),
    "multiples": (
        GrammarKind.JSON_SCHEMA,
        '{"allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]}',
    ),
    "tiny multiple": (GrammarKind.JSON_SCHEMA, '{"multipleOf": 1.0000001}'),
    "multiple of nought": (GrammarKind.JSON_SCHEMA, '{"multipleOf": 0}'),
    "endless reference": (GrammarKind.JSON_SCHEMA, '{"$ref": "#"}'),
    "foreign reference": (GrammarKind.JSON_SCHEMA, '{"$ref": "http://example.com/schema"}'),
    "product": (
        GrammarKind.JSON_SCHEMA,
        '{"allOf": ['
        + ",".join(['{"anyOf": [{}, {"type": "object"}, {"type": "null"}]}'] * 12)
        + "]}",
    ),
    "no schema": (GrammarKind.JSON_SCHEMA, "[]"),
    "no JSON": (GrammarKind.JSON_SCHEMA, "{"),
    "doubling": (
        GrammarKind.LARK,
        "start: r0\n" + "\n".join(f"r{i}: r{i + 1} r{i + 1}" for i in range(60)) + '\nr60: "a"',
    ),
    "left recursion": (GrammarKind.LARK, 'start: s\ns: s s s | s s | "a" | ""'),
    "intersection": (
        GrammarKind.LARK,
        "start: X\nX: /[a-z]*foo[a-z]*/ & /[a-z]*bar[a-z]*/ & ~/[a-z]*baz[a-z]*/ & /.{50,5000}/",
    ),
    "JSON within": (GrammarKind.LARK, 'start: %json {"multipleOf": 1000003}'),
    "no such grammar": (GrammarKind.LARK, "start: @other"),
    "no Lark": (GrammarKind.LARK, "start: 1 2 %"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_a_refusal_or_a_grammar_within_bounds(name: str) -> None:
    grammars = pretend_grammars()
    began = time.thread_time()
    matcher, why = None, ""
    try:
        matcher = Matcher(grammars.compile(*ATTACKS[name], 264))
    except (GuestFault, TooMany) as refusal:
        why = str(refusal)
    assert time.thread_time() - began < 5
    assert len(why) < 700
    if matcher is not None:
        assert any(can_follow(matcher, token) for token in range(264))


def test_a_refusal_says_where_and_why() -> None:
    with pytest.raises(GuestFault, match=r"(?s)constraint\.regex: .*unclosed"):
        pretend_grammars().compile(GrammarKind.REGEX, "a(b", 264)
    with pytest.raises(GuestFault, match=r"(?s)constraint\.lark: .*unknown name"):
        pretend_grammars().compile(GrammarKind.LARK, "start: nowhere", 264)


def test_one_text_is_compiled_once_and_old_ones_are_forgotten() -> None:
    grammars = pretend_grammars()
    first = grammars.compile(GrammarKind.REGEX, "a", 264)
    assert grammars.compile(GrammarKind.REGEX, "a", 264) is first
    assert grammars.compile(GrammarKind.LARK, 'start: "a"', 264) is not first
    for number in range(Limits().grammars_remembered):
        grammars.compile(GrammarKind.REGEX, f"b{number}", 264)
    assert grammars.compile(GrammarKind.REGEX, "a", 264).number != first.number
