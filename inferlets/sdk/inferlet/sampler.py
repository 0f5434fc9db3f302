"""Sampler: how the next token is chosen from the model's distribution. Pure values.

`Sampler.greedy()` takes the likeliest; the others draw. The drawing happens in the worker, seeded
there, so the same seed gives the same text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inferlet.forward import Distribution


@dataclass(frozen=True)
class Sampler:
    """A choice of sampler; what is None does not restrict."""

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    choose: Callable[[Distribution], int] | None = None
    seed: int | None = None  # in `generate`: the same seed, the same tokens, whoever else runs

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
        if self.seed is not None and (self.choose is not None or not 0 <= self.seed < 2**64):
            raise ValueError("a seed is a number of 64 bits, for a sampler that is built in")

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
