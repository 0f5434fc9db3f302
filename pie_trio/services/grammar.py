"""Grammars of one model: compiled, judged, and followed token by token.

Owns what was compiled of late, so that one text is compiled once, whoever brings it. Compiling is
bounded by what the library counts and by the processor's time that it took: what passes here is
what a worker may be told of. It is synchronous and belongs into a thread, one at a time.
It must never let a number through that the library would count up to.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from gpu_worker.wire import GrammarBounds
from gpu_worker.wire.fragments import pack
from gpu_worker.wire.outputs import WRITTEN
from pie_trio.config import Limits
from pie_trio.errors import GuestFault, TooMany

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from llguidance._lib import JsonCompileOptions

SPACING: JsonCompileOptions = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}
_INLINE_JSON = re.compile(r"%\s*json")


class GrammarKind(Enum):
    """In what a grammar is written."""

    JSON_SCHEMA = "json-schema"
    REGEX = "regex"
    LARK = "lark"


@attrs.frozen(eq=False)
class Grammar:
    """A compiled grammar; its number is its own among all of its model."""

    number: int
    text: str  # as a worker compiles it
    start: LLMatcher

    @property
    def written(self) -> bytes:
        """How an output names a text that has not begun."""
        return WRITTEN.pack(self.number)


class Matcher:
    """A text under a grammar, as far as it has come."""

    def __init__(self, grammar: Grammar) -> None:
        self.grammar = grammar
        self.written = grammar.written
        self._at = grammar.start.deep_copy()

    def advance(self, tokens: Sequence[int]) -> bool:
        """Whether nothing but an end may follow now. Raises `GuestFault`: nothing has changed."""
        taken = self._at.try_consume_tokens(list(tokens))
        if taken < len(tokens):
            error = self._at.get_error() or "the grammar does not allow it there"
            self._at.rollback(taken)
            raise GuestFault(f"matcher.advance: token {tokens[taken]} at {taken}: {error}")
        self.written += pack("i", tokens)
        return bool(self._at.is_stopped())

    @property
    def may_end(self) -> bool:
        return bool(self._at.is_accepting())

    def fork(self) -> Matcher:
        twin = Matcher(self.grammar)
        twin.written, twin._at = self.written, self._at.deep_copy()
        return twin


class Grammars:
    """The grammars of one model."""

    def __init__(self, tokenizer: Path, ends: tuple[int, ...], limits: Limits) -> None:
        self.ends = ends
        self.bounds = GrammarBounds(
            compile_fuel=limits.grammar_compile_fuel,
            step_fuel=limits.grammar_step_fuel,
            step_items=limits.grammar_step_items,
            states=limits.grammar_states,
            symbols=limits.grammar_symbols,
        )
        self._tokenizer = tokenizer
        self._limits = limits
        self._vocabulary: LLTokenizer | None = None
        self._compiled: OrderedDict[tuple[GrammarKind, str], Grammar] = OrderedDict()
        self._numbers = 0

    def compile(self, kind: GrammarKind, source: str, vocab_size: int) -> Grammar:
        """Raises `GuestFault` with where and why, or `TooMany`."""
        known = self._compiled.get((kind, source))
        if known is not None:
            self._compiled.move_to_end((kind, source))
            return known
        if not self.ends:
            raise GuestFault("constraint: this model has no token that ends a text")
        text = self._text_of(kind, source)
        self._numbers += 1
        grammar = Grammar(self._numbers, text, self._judged(kind, text, vocab_size))
        self._compiled[kind, source] = grammar
        while len(self._compiled) > self._limits.grammars_remembered:
            self._compiled.popitem(last=False)
        return grammar

    def _judged(self, kind: GrammarKind, text: str, vocab_size: int) -> LLMatcher:
        from gpu_worker.wire.compiling import compile_grammar, open_vocabulary

        if self._vocabulary is None:
            tokenizer = self._tokenizer.read_text(encoding="utf-8")
            self._vocabulary = open_vocabulary(tokenizer, vocab_size, self.ends)
        began = time.thread_time()
        matcher = compile_grammar(self._vocabulary, text, self.bounds)
        error = matcher.get_error() or _error_of_a_start(matcher) or _error_of_a_start(matcher)
        took, bound = time.thread_time() - began, self._limits.grammar_seconds
        if took > bound:
            raise TooMany(f"grammar_seconds: this {kind.value} takes {took:.2g} s, at most {bound}")
        if error:
            shown = error[: self._limits.grammar_error_characters]
            raise GuestFault(f"constraint.{kind.value}: {shown}")
        return matcher

    def _text_of(self, kind: GrammarKind, source: str) -> str:
        from llguidance import LLMatcher

        match kind:
            case GrammarKind.REGEX:
                text: str = LLMatcher.grammar_from_regex(source)
            case GrammarKind.LARK:
                if _INLINE_JSON.search(source):
                    raise GuestFault("constraint.lark: %json is not served: use json-schema")
                text = LLMatcher.grammar_from_lark(source)
            case GrammarKind.JSON_SCHEMA:
                schema = _read_schema(source)
                _check_multiples(schema, self._limits.grammar_multiple_max)
                try:
                    text = LLMatcher.grammar_from_json_schema(json.dumps(schema), defaults=SPACING)
                except ValueError as error:  # a text that is no Unicode
                    raise GuestFault(f"constraint.json-schema: {error}") from error
        return text


def _error_of_a_start(matcher: LLMatcher) -> str:
    """Why no text can begin. All share what the library may build: if the first took nearly all of
    it, there is none left for the second.
    """
    text = matcher.deep_copy()
    text.compute_bitmask()
    return text.get_error()


def _read_schema(source: str) -> Any:
    try:
        schema = json.loads(source)
    except (ValueError, RecursionError) as error:
        raise GuestFault(f"constraint.json-schema: this is no JSON: {error}") from error
    if not isinstance(schema, (dict, bool)):
        raise GuestFault("constraint.json-schema: a schema is an object, true or false")
    return schema


def _check_multiples(schema: Any, most: int) -> None:
    """The library makes a state for each remainder of the least common multiple."""
    parts = [_fraction(value) for value in _values_of("multipleOf", schema)]
    scale = math.lcm(*(part.denominator for part in parts))
    states = math.lcm(*(int(part * scale) for part in parts))
    if not 1 <= states <= most:
        raise GuestFault(
            "constraint.json-schema: the least common multiple of all multipleOf, without their "
            f"decimal points, is not in 1 to {most} (grammar_multiple_max)"
        )


def _fraction(value: Any) -> Fraction:
    try:
        return abs(Fraction(str(value)))
    except (ValueError, ZeroDivisionError) as error:
        raise GuestFault(f"constraint.json-schema: multipleOf {value!r:.40}") from error


def _values_of(name: str, schema: Any) -> Iterator[Any]:
    """All values under this name, at whatever depth."""
    waiting = [schema]
    while waiting:
        match waiting.pop():
            case dict() as part:
                waiting.extend(part.values())
                if name in part:
                    yield part[name]
            case list() as parts:
                waiting.extend(parts)
