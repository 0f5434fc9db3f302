"""A conversation to the text that the model was trained on.

Owns one compiled Jinja template in an immutable sandbox. Templates come with models, which come
from strangers, and messages come from guests: what either does wrong ends as `BadTemplate`.
It must never give a template a way to attributes of our objects, nor let it fill our memory.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from types import CodeType
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pie_trio.errors import PieError

SOURCE_CHARACTERS_MAX = 256 * 1024
RENDERED_CHARACTERS_MAX = 4 * 1024 * 1024
LOOP_ROUNDS_MAX = 100_000  # of one rendering. A clock would also fail the innocent


class BadTemplate(PieError):
    """The template cannot be compiled, or not be rendered with these messages."""


class _Refused(TemplateError):
    """The template itself called `raise_exception`."""


def _raise_exception(text: object) -> NoReturn:
    raise _Refused(str(text))


class ChatTemplate:
    """Renders conversations; the same arguments give the same text, always."""

    def __init__(self, source: str) -> None:
        if len(source) > SOURCE_CHARACTERS_MAX:
            raise BadTemplate(f"a chat template of {len(source)} characters is too long")
        self.source = source
        self._environment = _Environment()
        self._template = _compile(self._environment, source)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        **variables: Any,
    ) -> str:
        for message in messages:
            _check_message(message)
        names = {"bos_token": "", "eos_token": "", **variables}
        self._environment.rounds = 0
        pieces: list[str] = []
        length = 0
        try:
            for piece in self._template.generate(
                messages=list(messages), add_generation_prompt=add_generation_prompt, **names
            ):
                pieces.append(piece)
                length += len(piece)
                if length > RENDERED_CHARACTERS_MAX:
                    raise BadTemplate(f"a text of {length} characters is too long for a prompt")
        except BadTemplate:
            raise
        except Exception as error:  # whatever a stranger's template does to our messages
            raise BadTemplate(f"the chat template failed: {error}"[:1000]) from error
        return "".join(pieces)


class _Environment(ImmutableSandboxedEnvironment):
    """A sandbox that counts the rounds of every loop and has no cheap way to a huge value.

    `rounds` belongs to the rendering in progress; rendering never waits, so there is but one.
    """

    intercepted_binops = frozenset(["*", "**", "%"])

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        self.globals["raise_exception"] = _raise_exception
        self.rounds = 0

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            tick = nodes.Call(nodes.EnvironmentAttribute("tick"), [], [], None, None)
            loop.body.insert(0, nodes.Output([tick]))
        return tree

    def tick(self) -> str:
        self.rounds += 1
        if self.rounds > LOOP_ROUNDS_MAX:
            raise BadTemplate(f"a chat template may loop {LOOP_ROUNDS_MAX} times in all")
        return ""

    def call_binop(self, context: object, operator: str, left: Any, right: Any) -> Any:
        if not all(isinstance(value, int) and abs(value) < 1 << 31 for value in (left, right)):
            raise BadTemplate(f"a chat template may use {operator!r} on small numbers only")
        if operator == "**" and not 0 <= right < 64:
            raise BadTemplate("a chat template may not raise to so high a power")
        return self.binop_table[operator](left, right)


def _compile(environment: _Environment, source: str) -> Template:
    try:
        return Template.from_code(environment, _code_of(source), environment.make_globals(None))
    except TemplateError as error:
        raise BadTemplate(f"the chat template does not compile: {error}"[:1000]) from error


@functools.lru_cache(maxsize=8)
def _code_of(source: str) -> CodeType:
    """Compiling takes milliseconds, and models share templates."""
    return _Environment().compile(source)


def _check_message(message: Mapping[str, Any]) -> None:
    if not isinstance(message, Mapping):
        raise BadTemplate("a chat message must be a map")
    if not isinstance(message.get("role"), str):
        raise BadTemplate("a chat message needs a role, a text")
