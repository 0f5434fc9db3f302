"""Which grammars the worker of one generation knows: what a batch must teach it.

Pure. The book is written when a batch is made, and a batch is lost only with its worker, so the two
never differ. It forgets the grammars that were used longest ago, and tells the worker of it with
the same batch. It dies with its generation: the next worker knows nothing.
It must never forget a grammar that the batch at hand needs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from gpu_worker.wire import GrammarBounds, Lesson
from pie_trio.services.grammar import Grammar


class GrammarBook:
    """Of one generation."""

    def __init__(self, ends: tuple[int, ...], bounds: GrammarBounds, known_max: int) -> None:
        self._ends = ends
        self._bounds = bounds
        self._known_max = known_max
        self._known: OrderedDict[int, None] = OrderedDict()

    def lesson(self, used: Iterable[Grammar | None]) -> Lesson | None:
        """What the worker must be told before it executes what uses these; none for nothing."""
        needed = {grammar.number: grammar for grammar in used if grammar is not None}
        if not needed:
            return None
        fresh = {number: needed[number] for number in needed.keys() - self._known.keys()}
        for number in needed:
            self._known[number] = None
            self._known.move_to_end(number)
        if not fresh:
            return None
        forgotten = self._forget(max(self._known_max, len(needed)))
        grammars = tuple((number, fresh[number].text) for number in sorted(fresh))
        return Lesson(self._ends, self._bounds, grammars, forgotten)

    def _forget(self, kept: int) -> tuple[int, ...]:
        count = max(len(self._known) - kept, 0)
        return tuple(self._known.popitem(last=False)[0] for _ in range(count))
