"""Constraint: what a text must match. Give one to `generate` or to a `Sampler`.

    colour = Constraint.regex(model, "red|green|blue")
    text = await context.generate(constraint=colour).collect()

The model chooses among the tokens that may follow, so the text matches as far as it goes; one that
was cut off by its number of tokens is a beginning, and `is_complete` says so. A grammar that is
wrong is a `ValueError` that says where, one that costs too much a `BudgetExceeded`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from wit_world.imports import constraints

from inferlet.errors import raised
from inferlet.model import Model


class Matcher:
    """A text under a constraint, as far as it has come."""

    def __init__(self, raw: constraints.Matcher) -> None:
        self.raw = raw
        self.tokens: list[int] = []
        self.is_closed = False  # nothing but an end may follow

    def advance(self, tokens: Sequence[int]) -> None:
        """The text goes on with these. A `ValueError` has changed nothing."""
        with raised():
            self.is_closed = self.raw.advance(list(tokens))
        self.tokens += tokens

    @property
    def may_end(self) -> bool:
        return self.raw.may_end()

    def fork(self) -> Matcher:
        with raised():
            twin = Matcher(self.raw.fork())
        twin.tokens, twin.is_closed = list(self.tokens), self.is_closed
        return twin


class Constraint:
    """A grammar, compiled for one model; usable by many texts."""

    def __init__(self, raw: constraints.Constraint, model: Model) -> None:
        self._raw = raw
        self._latest: Matcher | None = None  # of the text that was asked about last
        self.end = model.stop_tokens()[0]

    @classmethod
    def json_schema(cls, model: Model, schema: str | Mapping[str, Any]) -> Constraint:
        """JSON that a schema describes, on one line."""
        text = schema if isinstance(schema, str) else json.dumps(schema)
        with raised():
            return cls(constraints.Constraint.json_schema(model.raw, text), model)

    @classmethod
    def regex(cls, model: Model, pattern: str) -> Constraint:
        """What this regular expression matches, as a whole."""
        with raised():
            return cls(constraints.Constraint.regex(model.raw, pattern), model)

    @classmethod
    def lark(cls, model: Model, grammar: str) -> Constraint:
        """What a Lark grammar derives from `start`."""
        with raised():
            return cls(constraints.Constraint.lark(model.raw, grammar), model)

    def matcher(self) -> Matcher:
        """At the beginning of a text."""
        with raised():
            return Matcher(self._raw.matcher())

    def after(self, tokens: Sequence[int]) -> Matcher:
        """After this text; it is followed from where it was asked about last."""
        latest = self._latest
        if latest is None or list(tokens[: len(latest.tokens)]) != latest.tokens:
            latest = self._latest = self.matcher()
        if len(tokens) > len(latest.tokens):
            latest.advance(tokens[len(latest.tokens) :])
        return latest

    def is_complete(self, tokens: Sequence[int]) -> bool:
        """Whether the text may end here: otherwise it was cut off."""
        return self.after(tokens).may_end
