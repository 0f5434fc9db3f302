"""`pie:ext/constraints`: grammars, and streams and passes under them.

Owns the guest's views; what the host keeps of them is charged to the guest until they are dropped.
The mask of a token is found in the worker, beside its sampler: here a text is only followed. A
worker that is lost takes nothing of this along: a text is named by all of its tokens.
It must never compile a grammar in the loop of the engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import attrs

from pie_trio.services.grammar import Grammar, GrammarKind, Matcher
from pie_trio.wasm.host import generate
from pie_trio.wasm.host.ext_errors import with_errors, with_errors_now
from pie_trio.wasm.host.faults import bounded_text, fault
from pie_trio.wasm.host.forward import POSITION_MAX
from pie_trio.wasm.host.passes import PassBuilder
from pie_trio.wasm.host.resources import Model, Queue
from pie_trio.wasm.host.state import HeldMemory, InstanceHost

if TYPE_CHECKING:
    from pie_trio.wasm.linker import HostFunction


@attrs.define(eq=False)
class Held:
    """What is charged to the guest as long as it has this."""

    _held: HeldMemory
    _charge: int

    def close(self) -> None:
        self._held.refund(self._charge)
        self._charge = 0


@attrs.define(eq=False)
class Constraint(Held):
    """The guest's view of a grammar."""

    grammar: Grammar
    model: str


@attrs.define(eq=False)
class Follower(Held):
    """The guest's view of a text under a grammar."""

    matcher: Matcher
    model: str


@with_errors
async def json_schema(host: InstanceHost, model: Model, schema: str) -> Constraint:
    return await _compiled(host, model, GrammarKind.JSON_SCHEMA, schema)


@with_errors
async def regex(host: InstanceHost, model: Model, pattern: str) -> Constraint:
    return await _compiled(host, model, GrammarKind.REGEX, pattern)


@with_errors
async def lark(host: InstanceHost, model: Model, grammar: str) -> Constraint:
    return await _compiled(host, model, GrammarKind.LARK, grammar)


async def _compiled(host: InstanceHost, model: Model, kind: GrammarKind, source: str) -> Constraint:
    """Cancelled: the thread ends by itself, soon."""
    function, charge = f"constraint.{kind.value}", host.limits.grammar_held_bytes
    bounded_text(function, "the text", source, host.limits.grammar_bytes, "grammar_bytes")
    with host.held.charged(function, charge):
        grammar = await model.handle.compile_grammar(kind, source)
    return Constraint(host.held, charge, grammar, model.handle.facts.name)


@with_errors_now
def matcher(host: InstanceHost, constraint: Constraint) -> Follower:
    return _follower(host, "constraint.matcher", Matcher(constraint.grammar), constraint.model)


@with_errors_now
def advance(host: InstanceHost, follower: Follower, tokens: Sequence[int]) -> bool:
    count = len(follower.matcher.written) // 4 + len(tokens)
    if count > host.limits.pass_rows_max:
        allowed = f"at most {host.limits.pass_rows_max} (pass_rows_max)"
        raise fault("matcher.advance", "the number of tokens of the text", count, allowed)
    if tokens and max(tokens) > POSITION_MAX:
        raise fault("matcher.advance", "a token", max(tokens), "one of the vocabulary")
    return follower.matcher.advance(tokens)


def may_end(_host: InstanceHost, follower: Follower) -> bool:
    return follower.matcher.may_end


@with_errors_now
def fork(host: InstanceHost, follower: Follower) -> Follower:
    return _follower(host, "matcher.fork", follower.matcher.fork(), follower.model)


@with_errors
async def start(
    host: InstanceHost, queue: Queue, request: Mapping[str, Any], follower: Follower
) -> generate.TokenStream:
    """As `generate.start`."""
    _check_model("constraints.start", follower, queue)
    return await generate.begin(host, queue, request, follower.matcher)


@with_errors_now
def restrict(_host: InstanceHost, builder: PassBuilder, row: int, follower: Follower) -> None:
    """Replaces the text of this row."""
    _check_model("constraints.restrict", follower, builder.queue)
    matcher = follower.matcher
    builder.restrict("constraints.restrict", row, matcher.grammar, matcher.written)


def _follower(host: InstanceHost, function: str, matcher: Matcher, model: str) -> Follower:
    charge = host.limits.grammar_held_bytes
    host.held.charge(function, charge)
    return Follower(host.held, charge, matcher, model)


def _check_model(function: str, follower: Follower, queue: Queue) -> None:
    name = queue.handle.model.facts.name
    if follower.model != name:
        raise fault(
            function, "the model of the constraint", follower.model, f"{name}, as the queue"
        )


CONSTRAINTS: Mapping[str, HostFunction] = MappingProxyType(
    {
        "[static]constraint.json-schema": json_schema,
        "[static]constraint.regex": regex,
        "[static]constraint.lark": lark,
        "[method]constraint.matcher": matcher,
        "[method]matcher.advance": advance,
        "[method]matcher.may-end": may_end,
        "[method]matcher.fork": fork,
        "start": start,
        "restrict": restrict,
    }
)
