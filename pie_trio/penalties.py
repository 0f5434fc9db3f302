"""What makes a token of a sequence less likely, or more: penalties and biases, kept as they travel.

Pure. Of each token the record is changed in place when the sequence has read or written it, so a
step costs the same however long the text is. It must never adjust what it was not told of.

The definitions are the field's. Repetition, over all of the text: a logit above nought is divided
by it, another multiplied (Keskar et al., "CTRL", 2019, section 4.1, signs told apart as all
implementations do). Frequency and presence, over what was generated: from the logit is subtracted
the one as often as the token was, the other once (OpenAI's API reference). A bias is added. All of
it comes before the temperature.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import attrs

from gpu_worker.wire import ADJUSTMENT


@attrs.frozen
class Penalties:
    """What each of them is; these change nothing."""

    repetition: float = 1.0
    frequency: float = 0.0
    presence: float = 0.0
    bias: Mapping[int, float] = attrs.field(factory=dict)

    @property
    def counts_generated(self) -> bool:
        return self.frequency != 0.0 or self.presence != 0.0

    @property
    def counts_text(self) -> bool:
        """Whether the text makes any difference."""
        return self.repetition != 1.0 or self.counts_generated

    @property
    def changes_nothing(self) -> bool:
        return not self.bias and not self.counts_text


@attrs.define(eq=False)
class Adjusting:
    """The adjustments of the next token of one sequence."""

    penalties: Penalties
    records: bytearray = attrs.field(factory=bytearray, init=False)
    _places: dict[int, int] = attrs.field(factory=dict, init=False)  # of a token's record
    _generated: Counter[int] = attrs.field(factory=Counter, init=False)
    _read: set[int] = attrs.field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        for token in self.penalties.bias:
            self._adjust(token)

    def read(self, tokens: Iterable[int]) -> None:
        """They stand in the text, and were not generated."""
        if self.penalties.repetition != 1.0:
            for token in {*tokens} - self._read:
                self._read.add(token)
                self._adjust(token)

    def wrote(self, tokens: Iterable[int]) -> None:
        """They stand in the text and were generated."""
        if self.penalties.counts_text:
            counts = Counter(tokens)
            self._read.update(counts)
            self._generated.update(counts)
            for token in counts:
                self._adjust(token)

    def _adjust(self, token: int) -> None:
        place = self._places.get(token)
        if place is None:
            place = self._places[token] = len(self.records)
            self.records += bytes(ADJUSTMENT.size)
        rules, times = self.penalties, self._generated[token]
        factor = rules.repetition if token in self._read else 1.0
        addend = rules.bias.get(token, 0.0) - rules.frequency * times - rules.presence * (times > 0)
        ADJUSTMENT.pack_into(self.records, place, token, factor, addend)
