"""Stop conditions: pure questions about the tokens written so far.

A condition is asked before the first token and after each one that may end the text. It answers
how many tokens, at the end, are not part of the text (a stop sequence is never shown), or None to
go on. `hidden_tokens_max` bounds that answer, so that text which may yet turn out to be part of a
stop sequence is held back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

NO_BOUND = 2**32 - 1  # of a text's tokens, as the engine counts them


@dataclass(frozen=True)
class StopCondition:
    """When to stop; conditions are joined by `any_of`."""

    ask: Callable[[Sequence[int]], int | None]
    hidden_tokens_max: int = 0
    # What of it the engine is told: it stops at each of these tokens and sequences, and at this
    # length; and whether that is all, wherever a text begins (a sequence may have begun before).
    tokens: frozenset[int] = frozenset()
    sequences: tuple[tuple[int, ...], ...] = ()
    tokens_max: int = NO_BOUND
    is_told: bool = False


def max_tokens(count: int) -> StopCondition:
    """Stop after `count` tokens; all of them are text."""
    if count < 0:
        raise ValueError(f"a text has no {count} tokens")
    return StopCondition(
        lambda tokens: 0 if len(tokens) >= count else None, tokens_max=count, is_told=True
    )


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
        lambda written: 1 if written and written[-1] in wanted else None,
        1,
        tokens=wanted,
        is_told=True,
    )


def any_of(*conditions: StopCondition) -> StopCondition:
    """Stop when one of these does; the first in the order given decides what is text."""

    def ask(tokens: Sequence[int]) -> int | None:
        for condition in conditions:
            answer = condition.ask(tokens)
            if answer is not None:
                return answer
        return None

    hidden = (condition.hidden_tokens_max for condition in conditions)
    return StopCondition(
        ask,
        max(hidden, default=0),
        frozenset[int]().union(*(condition.tokens for condition in conditions)),
        tuple(each for condition in conditions for each in condition.sequences),
        min((condition.tokens_max for condition in conditions), default=NO_BOUND),
        all(condition.is_told for condition in conditions),
    )
