"""Sampler: how the next token is chosen from the model's distribution. Pure values.

`Sampler.greedy()` takes the likeliest; the others draw. The drawing happens in the worker, seeded
there, so the same seed gives the same text. Penalties and biases change the logits first, as usual:
of a token that the text has, a logit above 0 is divided by `repetition_penalty` and another one
multiplied; from that of one that was generated, `frequency_penalty` is subtracted as often as it
was, and `presence_penalty` once; then `bias` is added.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

Adjustment = tuple[int, float, float]  # token, factor, addend

if TYPE_CHECKING:
    from inferlet.constraint import Constraint
    from inferlet.forward import Distribution


@dataclass(frozen=True)
class Sampler:
    """A choice of sampler; what is None does not restrict."""

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    choose: Callable[[Distribution], int] | None = None
    seed: int | None = None  # the same seed and position, the same token, whoever else runs
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None  # ln p of each token, and of so many of the likeliest
    constraint: Constraint | None = None  # what the text that is generated must match

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ValueError(f"temperature {self.temperature} is below 0")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k {self.top_k} is below 1")
        for name, share in (("top_p", self.top_p), ("min_p", self.min_p)):
            if share is not None and not 0 < share <= 1:
                raise ValueError(f"{name} {share} is not in 0..1")
        if self.min_p is not None and (self.top_k or self.top_p):
            raise ValueError("min_p stands alone")
        if self.seed is not None and not 0 <= self.seed < 2**64:
            raise ValueError("a seed is a number of 64 bits")
        if self.choose is not None and (self.seed, self.logprobs) != (None, None):
            raise ValueError("seeds and log-probabilities are for samplers that are built in")

    @property
    def counts_text(self) -> bool:
        """Whether it matters which tokens the text has."""
        others = self.frequency_penalty or self.presence_penalty
        return self.repetition_penalty != 1 or others != 0

    @property
    def adjusts(self) -> bool:
        """Whether it changes logits at all."""
        return self.counts_text or bool(self.bias)

    def adjustments(self, text: Sequence[int], generated: Sequence[int]) -> list[Adjustment]:
        """What the logits after this text are changed by, for `ForwardPass.adjust`."""
        times, read = Counter(generated), set[int]()
        if self.repetition_penalty != 1:
            read = {*text, *times}
        tokens = {*read, *self.bias, *(times if self.counts_text else ())}
        return [self._adjustment(token, token in read, times[token]) for token in sorted(tokens)]

    def _adjustment(self, token: int, is_read: bool, times: int) -> Adjustment:
        """Computed from what the host would be given, to the last bit."""
        factor = self.repetition_penalty if is_read else 1.0
        often, once = _as_f32(self.frequency_penalty), _as_f32(self.presence_penalty)
        addend = _as_f32(self.bias.get(token, 0.0)) - often * times - once * (times > 0)
        return token, factor, addend

    @classmethod
    def greedy(cls) -> Sampler:
        return cls()

    @classmethod
    def multinomial(cls, temperature: float) -> Sampler:
        return cls(temperature)

    @classmethod
    def for_top_k(cls, temperature: float, k: int) -> Sampler:
        return cls(temperature, top_k=k)

    @classmethod
    def for_top_p(cls, temperature: float, p: float) -> Sampler:
        return cls(temperature, top_p=p)

    @classmethod
    def for_min_p(cls, temperature: float, p: float) -> Sampler:
        return cls(temperature, min_p=p)

    @classmethod
    def for_top_k_top_p(cls, temperature: float, k: int, p: float) -> Sampler:
        return cls(temperature, top_k=k, top_p=p)

    @classmethod
    def custom(
        cls,
        choose: Callable[[Distribution], int],
        temperature: float = 1.0,
        top_k: int | None = None,
    ) -> Sampler:
        """`choose` picks from the distribution of the likeliest tokens, here in the program."""
        return cls(temperature, top_k=top_k, choose=choose)


def _as_f32(value: float) -> float:
    rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return rounded
