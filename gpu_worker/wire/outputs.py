"""What is wanted of one input row, and what is changed about its logits first.

Owns the samplers' names and the record of an adjustment: a token, by what its logit is divided if
it is above nought and multiplied if not, and what is then added. An output has a string of them, as
they travel, so that who adjusts the same tokens step after step changes a record in place.
A worker keeps nothing of them: each request brings its own.
"""

import struct
from collections.abc import Iterable
from enum import IntEnum

import attrs

WRITTEN = struct.Struct("<i")  # each number of a text under a grammar
ADJUSTMENT = struct.Struct("<iff")  # token, factor, addend
ADJUSTMENT_KIND = "<i4,<f4,<f4"  # the same for numpy
FACTOR_MAX = 1e6  # and its inverse the least
ADDEND_MAX = 1e9  # so far below the others, a token is never drawn


class SamplerKind(IntEnum):
    DISTRIBUTION = 0
    MULTINOMIAL = 1
    TOP_P = 2
    TOP_K = 3
    MIN_P = 4
    TOP_K_TOP_P = 5


@attrs.frozen
class OutputRow:
    """A token by some sampler, or the head of a distribution.

    `logprobs` of a token: how many log-probabilities are wanted, its own and then those of the
    likeliest tokens. `written` of an output under a grammar: its number, then the tokens that the
    text has so far; what follows must go on with both.
    """

    row: int
    kind: SamplerKind
    temperature: float
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    logprobs: int = 0
    adjustments: bytes = b""
    written: bytes = b""  # 32 bits each

    @property
    def wants_list(self) -> bool:
        """Whether ids with numbers answer it: those of a distribution, or beside a token."""
        return self.logprobs > 0 or self.kind is SamplerKind.DISTRIBUTION

    @property
    def numbers(self) -> int:
        """How many travel for it, both ways, beside those that every output has."""
        head = self.top_k if self.kind is SamplerKind.DISTRIBUTION else self.logprobs
        return 2 * head + (len(self.adjustments) + len(self.written)) // 4


def extended(written: bytes, token: int) -> bytes:
    """A text under a grammar, with one token more."""
    return written + WRITTEN.pack(token)


def pack_adjustments(entries: Iterable[tuple[int, float, float]]) -> bytes:
    """Of (token, factor, addend), each token once."""
    return b"".join([ADJUSTMENT.pack(*entry) for entry in entries])
