"""Beam search: the likeliest continuation among the few best at every step.

Beams are forks of one context, so what they have in common is computed once. A beam that has met
the stop condition is kept as it is; the search ends when the best of all has met it. Cancelled: the
context that was searched from is as it was.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inferlet.stop import StopCondition

if TYPE_CHECKING:
    from inferlet.constraint import Constraint
    from inferlet.context import Context


@dataclass(frozen=True)
class Beam:
    """One continuation: its context, the tokens that were added, and the sum of their ln p (which
    counts a stop sequence that is not part of the text)."""

    context: Context
    tokens: tuple[int, ...] = ()
    score: float = 0.0


async def search(
    start: Context, width: int, stop: StopCondition, constraint: Constraint | None = None
) -> Beam:
    """The best continuation of `start`, which itself stays where it is.

    Under a constraint, a score counts the shares among the tokens that may follow.
    """
    if width < 1:
        raise ValueError(f"a beam search keeps at least one beam, not {width}")
    await start.flush()
    beams = [Beam(start.fork())]
    while (hidden := stop.ask(beams[0].tokens)) is None:
        beams = await _step(beams, width, stop, constraint)
    best = beams[0]
    best.context.truncate(len(best.context.tokens) - hidden)
    return Beam(best.context, best.tokens[: len(best.tokens) - hidden], best.score)


async def _step(
    beams: Sequence[Beam], width: int, stop: StopCondition, constraint: Constraint | None
) -> list[Beam]:
    """Each beam that is not done is continued in the `width` likeliest ways; the best stay."""
    done = [beam for beam in beams if stop.ask(beam.tokens) is not None]
    growing = [beam for beam in beams if beam not in done]
    asked = (beam.context.decode_step_dist(1.0, width, constraint, beam.tokens) for beam in growing)
    options: list[tuple[float, Beam, int | None]] = [(beam.score, beam, None) for beam in done]
    for beam, distribution in zip(growing, await asyncio.gather(*asked), strict=True):
        for token, share in zip(distribution.ids[:width], distribution.probabilities, strict=False):
            if share > 0:
                options.append((beam.score + math.log(share), beam, token))
    options.sort(key=lambda option: -option[0])
    return _grown(options[:width])


def _grown(options: Sequence[tuple[float, Beam, int | None]]) -> list[Beam]:
    """The last continuation of a beam takes over its context, the others fork it before."""
    last_use = {id(beam): place for place, (_, beam, _) in enumerate(options)}
    grown = []
    for place, (score, beam, token) in enumerate(options):
        if token is None:
            grown.append(beam)
            continue
        is_last = last_use[id(beam)] == place
        context = beam.context if is_last else beam.context.fork()
        context.fill_tokens([token])
        grown.append(Beam(context, (*beam.tokens, token), score))
    return grown
