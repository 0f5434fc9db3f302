"""Stop conditions: pure questions about the tokens written so far.

A condition is asked before the first token and after each one. It answers how many tokens, at the
end, are not part of the text (a stop sequence is never shown), or None to go on.
`hidden_tokens_max` bounds that answer, so that text which may yet turn out to be part of a stop
sequence is held back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class StopCondition:
    """When to stop; conditions are joined by `any_of`."""

    ask: Callable[[Sequence[int]], int | None]
    hidden_tokens_max: int = 0
    tokens: frozenset[int] = frozenset()  # it stops at each of these,
    sequences: tuple[tuple[int, ...], ...] = ()  # and at each of these: the engine is told


def max_tokens(count: int) -> StopCondition:
    """Stop after `count` tokens; all of them are text."""
    if count < 0:
        raise ValueError(f"a text has no {count} tokens")
    return StopCondition(lambda tokens: 0 if len(tokens) >= count else None)


def ends_with(sequence: Sequence[int]) -> StopCondition:
    """Stop at this sequence of tokens, which is not part of the text."""
    wanted = list(sequence)
    if not wanted:
        raise ValueError("an empty stop sequence would stop before the first token")

    def ask(tokens: Sequence[int]) -> int | None:
        return len(wanted) if list(tokens[-len(wanted) :]) == wanted else None

    return StopCondition(ask, len(wanted), sequences=(tuple(wanted),))


def stop_tokens(tokens: Iterable[int]) -> StopCondition:
    """Stop at any of these tokens, which is not part of the text."""
    wanted = frozenset(tokens)
    return StopCondition(
        lambda written: 1 if written and written[-1] in wanted else None, 1, tokens=wanted
    )


def any_of(*conditions: StopCondition) -> StopCondition:
    """Stop when one of these does; the first in the order given decides what is text."""

    def ask(tokens: Sequence[int]) -> int | None:
        answers = (condition.ask(tokens) for condition in conditions)
        return next((answer for answer in answers if answer is not None), None)

    hidden = (condition.hidden_tokens_max for condition in conditions)
    return StopCondition(
        ask,
        max(hidden, default=0),
        frozenset[int]().union(*(condition.tokens for condition in conditions)),
        tuple(each for condition in conditions for each in condition.sequences),
    )
