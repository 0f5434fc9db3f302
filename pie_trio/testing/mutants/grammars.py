"""Defects of constraints: what a worker was taught, and what a text has so far."""

from __future__ import annotations

from typing import Final

from pie_trio.testing.mutants.mutant import Mutant

_BOOK: Final = "pie_trio/services/grammar_book.py"
_DECODE: Final = "pie_trio/decode.py"
_CHUNKS: Final = "pie_trio/services/pass_chunks.py"

GRAMMARS: Final = (
    Mutant(
        "taught_in_vain",
        _BOOK,
        before="        if not fresh:",
        after="        if not fresh or len(self._known) == len(fresh) + 1:",
        why="a worker is not taught a grammar that the book says it knows",
        source="own: the book and the worker must never differ",
    ),
    Mutant(
        "text_not_told",
        _DECODE,
        before="output = attrs.evolve(output, written=extended(output.written, self.tokens[-1]))",
        after="output = attrs.evolve(output, written=output.written)",
        why="each step of a stream stands at the beginning of its grammar",
        source="own: a text is named by all of its tokens",
    ),
    Mutant(
        "end_unnoticed",
        _CHUNKS,
        before="        self.is_closed = self.is_closed or answer.is_closed",
        after="        self.is_closed = self.is_closed and answer.is_closed",
        why="a stream goes on when its grammar is complete",
        source="own: the end of a grammar",
    ),
)
