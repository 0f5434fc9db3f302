"""ForwardPass: one run of the model over some tokens; a builder that is executed once.

It holds the pages that it names until it has answered. Cancelled while it runs: the pass may still
run, its answer falls into an empty slot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from wit_world.imports import forward
from wit_world.imports import inferlet_core_common as common

from inferlet.brle import Brle
from inferlet.host import settled
from inferlet.sampler import Sampler

if TYPE_CHECKING:
    from inferlet.queue import KvPage


@dataclass(frozen=True)
class Distribution:
    """The likeliest next tokens, likeliest first, and their probabilities."""

    ids: list[int]
    probabilities: list[float]

    def probability(self, token: int) -> float:
        """Of this token; nought if it is not among the likeliest."""
        return self.probabilities[self.ids.index(token)] if token in self.ids else 0.0

    def draw(self, chance: Random) -> int:
        """One of the tokens, each as often as it is likely."""
        return chance.choices(self.ids, self.probabilities)[0]


@dataclass(frozen=True)
class PassResult:
    """One token for each sampled output, one distribution for each that was asked for."""

    tokens: list[int]
    distributions: list[Distribution]


class ForwardPass:
    """Say what goes in and what comes out, then `execute` it."""

    def __init__(self, queue: common.Queue) -> None:
        self._raw = forward.create_forward_pass(queue)
        self._pages: list[KvPage] = []
        self._wants_tokens = False
        self._wants_distributions = False
        self._choose: Callable[[Distribution], int] | None = None

    def kv_cache(self, pages: Sequence[KvPage], last_page_length: int) -> None:
        """The pages of the whole context; the last one holds so many tokens after this pass."""
        self._pages = list(pages)
        forward.kv_cache(self._raw, [page.handle for page in pages], last_page_length)

    def input_tokens(self, tokens: Sequence[int], positions: Sequence[int]) -> None:
        """The rows of this pass."""
        forward.input_tokens(self._raw, list(tokens), list(positions))

    def attention_mask(self, rows: Sequence[Brle]) -> None:
        """What each row sees of the context up to itself; without it, everything."""
        forward.attention_mask(self._raw, [list(row.runs) for row in rows])

    def output_distributions(
        self, rows: Sequence[int], temperature: float = 1.0, top_k: int | None = None
    ) -> None:
        """Asks for the distribution of the token after each of these rows."""
        self._wants_distributions = True
        forward.output_distributions(self._raw, list(rows), temperature, top_k)

    def output_tokens(self, rows: Sequence[int], sampler: Sampler) -> None:
        """Asks for a token after each of these rows."""
        if sampler.choose is not None:
            self.output_distributions(rows, sampler.temperature, sampler.top_k)
            self._choose = sampler.choose
            return
        self._wants_tokens = True
        raw, indices, heat = self._raw, list(rows), sampler.temperature
        if sampler.min_p is not None:
            forward.output_tokens_min_p(raw, indices, heat, sampler.min_p)
        elif sampler.top_k is not None and sampler.top_p is not None:
            forward.output_tokens_top_k_top_p(raw, indices, heat, sampler.top_k, sampler.top_p)
        elif sampler.top_k is not None:
            forward.output_tokens_top_k(raw, indices, heat, sampler.top_k)
        elif sampler.top_p is not None:
            forward.output_tokens_top_p(raw, indices, heat, sampler.top_p)
        else:
            forward.output_tokens(raw, indices, heat)

    async def execute(self) -> PassResult:
        """Runs the pass. One without outputs answers at once; synchronize its queue to be sure."""
        pending = self._raw.execute()
        if pending is None:
            return PassResult([], [])
        await settled(pending)
        tokens = pending.get_tokens() if self._wants_tokens else []
        pairs = pending.get_distributions() if self._wants_distributions else []
        distributions = [Distribution(list(ids), list(shares)) for ids, shares in pairs or []]
        self._pages = []
        if self._choose is not None:
            return PassResult([self._choose(each) for each in distributions], distributions)
        return PassResult(list(tokens or []), distributions)
