"""What may come next under a grammar: matchers beside the sampler.

Owns the compiled grammars that the controller has told of, and a bounded memory of texts under
them. The memory is only a short cut: a request brings all that its text has so far, so a text that
was never seen, was forgotten or was cut back is simply read again. A grammar that exceeds its
bounds costs the requests that name it their answer, and nobody else.
It must never import torch: the pretend worker obeys grammars, too.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import numpy as np

from gpu_worker.wire import BatchArrays, Lesson
from gpu_worker.wire.arrays import Array
from gpu_worker.wire.outputs import WRITTEN, extended

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

TEXTS_REMEMBERED = 2048
REASON_CHARACTERS = 300

Written = bytes  # as `OutputRow.written`: the number of a grammar, then the tokens of a text


@attrs.frozen
class Refusal:
    """Why nothing can follow a text."""

    reason: str


Allowed = Mapping[Written, Array | Refusal]


class Constraints:
    """All grammars of one worker. One thread at a time."""

    def __init__(self, tokenizer: Path, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._vocabulary: LLTokenizer | None = None
        self._grammars: dict[int, LLMatcher] = {}
        self._texts: OrderedDict[Written, LLMatcher] = OrderedDict()

    @contextmanager
    def beside(
        self, lesson: Lesson | None, texts: Collection[Written]
    ) -> Iterator[Callable[[], Allowed]]:
        """Learns and finds what is allowed in a thread of its own, while the block computes."""
        if lesson is None and not texts:
            yield dict
            return
        with ThreadPoolExecutor(1) as pool:
            yield pool.submit(self.prepare, lesson, texts).result

    def prepare(self, lesson: Lesson | None, texts: Iterable[Written]) -> Allowed:
        """The tokens that may follow each text, rising; an end is among them where it may end."""
        if lesson is not None:
            self.learn(lesson)
        return {text: self._allowed(text) for text in dict.fromkeys(texts)}

    def learn(self, lesson: Lesson) -> None:
        """Compiles what is new. Raises `ValueError` when the tokenizer cannot be read."""
        # Here, because the library takes a moment that a start without grammars need not take.
        from gpu_worker.wire.compiling import compile_grammar, open_vocabulary

        for number in lesson.forgotten:
            self._grammars.pop(number, None)
        if self._vocabulary is None:
            text = self._tokenizer.read_text(encoding="utf-8")
            self._vocabulary = open_vocabulary(text, self._vocab_size, lesson.ends)
        for number, text in lesson.grammars:
            self._grammars[number] = compile_grammar(self._vocabulary, text, lesson.bounds)

    def advance(self, drawn: Sequence[tuple[Written, int]]) -> list[bool | Refusal]:
        """Each text goes on with a token: whether nothing but an end may follow now."""
        uses = Counter(text for text, _ in drawn)
        found: list[bool | Refusal] = []
        for text, token in drawn:
            uses[text] -= 1
            found.append(self._follow(text, token, is_last=not uses[text]))
        return found

    def _allowed(self, text: Written) -> Array | Refusal:
        matcher = self._texts.get(text) or self._read(text)
        if isinstance(matcher, Refusal):
            return matcher
        self._remember(text, matcher)
        bits = np.zeros(-(-self._vocab_size // 32), dtype=np.uint32)
        matcher.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes)
        if error := matcher.get_error():
            return _refusal(error)
        flags = np.unpackbits(bits.view(np.uint8), bitorder="little")[: self._vocab_size]
        tokens: Array = flags.nonzero()[0]
        return tokens if len(tokens) else _refusal("nothing may follow this text")

    def _read(self, text: Written) -> LLMatcher | Refusal:
        """From the longest beginning that is remembered: all but a token, or nothing."""
        number, *tokens = (value for (value,) in WRITTEN.iter_unpack(text))
        known = self._texts.get(text[: -WRITTEN.size]) if tokens else None
        grammar = known or self._grammars.get(number)
        if grammar is None:
            return _refusal(f"this worker was not told of grammar {number}")
        matcher = grammar.deep_copy()
        matcher.consume_tokens(tokens[-1:] if known else tokens)
        error = matcher.get_error()
        return _refusal(error) if error else matcher

    def _follow(self, text: Written, token: int, is_last: bool) -> bool | Refusal:
        matcher = self._texts.pop(text, None) or self._read(text)
        if isinstance(matcher, Refusal):
            return matcher
        if not is_last:
            self._remember(text, matcher)
            matcher = matcher.deep_copy()
        matcher.consume_token(token)
        self._remember(extended(text, token), matcher)
        error = matcher.get_error()
        return _refusal(error) if error else bool(matcher.is_stopped())

    def _remember(self, text: Written, matcher: LLMatcher) -> None:
        self._texts[text] = matcher
        self._texts.move_to_end(text)
        while len(self._texts) > TEXTS_REMEMBERED:
            self._texts.popitem(last=False)


def _refusal(reason: str) -> Refusal:
    return Refusal(f"constraint: {reason}"[:REASON_CHARACTERS])


def texts_of(batch: BatchArrays, wanted: Array) -> dict[int, Written]:
    """The text of each output that is under a grammar, by the number of the output."""
    if not len(batch.written):
        return {}
    constrained = wanted & (np.diff(batch.written_indptr) > 0)
    return {place: batch.text_written(place) for place in constrained.nonzero()[0].tolist()}
