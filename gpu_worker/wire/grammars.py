"""What a worker must know of grammars: it is told with the batch that first needs it.

Owns the form of a lesson in the header of a batch. A lesson is part of its batch, so it is lost
only with the worker that should have learned it. Everything that a broken peer can send raises
`WireError`.
It must never hold behaviour: how a grammar is compiled is in `compiling`.
"""

from typing import Any

import attrs

from gpu_worker.wire.errors import WireError


@attrs.frozen
class GrammarBounds:
    """What it may cost to compile a grammar, and to take one step under it."""

    compile_fuel: int
    step_fuel: int
    step_items: int
    states: int
    symbols: int


@attrs.frozen
class Lesson:
    """Grammars by number, which from now on are known, and those that are not any more."""

    ends: tuple[int, ...]  # the tokens that end a text
    bounds: GrammarBounds
    grammars: tuple[tuple[int, str], ...]
    forgotten: tuple[int, ...]


def write_lesson(lesson: Lesson | None) -> Any:
    return None if lesson is None else attrs.astuple(lesson)


def read_lesson(value: Any) -> Lesson | None:
    """Raises `WireError`."""
    if value is None:
        return None
    try:
        ends, bounds, grammars, forgotten = value
        lesson = Lesson(
            ends=tuple(map(_natural, ends)),
            bounds=GrammarBounds(*map(_natural, bounds)),
            grammars=tuple((_natural(number), _text(text)) for number, text in grammars),
            forgotten=tuple(map(_natural, forgotten)),
        )
    except (TypeError, ValueError) as error:
        raise WireError(f"a lesson is malformed: {error}") from error
    if not lesson.ends:
        raise WireError("a lesson names no token that ends a text")
    return lesson


def _natural(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 31:
        raise ValueError(f"{value!r:.80} is not a number of 31 bits")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.80} is not a text")
    return value
