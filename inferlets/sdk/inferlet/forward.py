"""ForwardPass: a run of the model over some tokens; a builder that executing empties.

A pass holds the pages that it names until it has answered. Cancelled while it runs: it may still
run, its answer falls into an empty slot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from wit_world.imports import constraints, forward, sampling
from wit_world.imports import inferlet_core_common as common

from inferlet.brle import Brle
from inferlet.errors import raised
from inferlet.host import settled
from inferlet.sampler import Adjustment, Sampler

if TYPE_CHECKING:
    from inferlet.constraint import Matcher
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
class Logprobs:
    """ln p of a token, and of the likeliest ones in its place, falling; the model's own, at
    temperature 1, whatever the sampler."""

    token: int
    logprob: float
    likeliest: list[tuple[int, float]]

    @classmethod
    def of(cls, pairs: Sequence[tuple[int, float]]) -> Logprobs:
        return cls(*pairs[0], list(pairs[1:]))


@dataclass(frozen=True)
class PassResult:
    """One token for each sampled output, one distribution for each that was asked for; and the
    log-probabilities of each token, if its sampler wants them."""

    tokens: list[int]
    distributions: list[Distribution]
    logprobs: list[Logprobs] = field(default_factory=list)


@dataclass(slots=True)
class _Asked:
    """What is wanted of a pass, and the pages that it holds."""

    pages: Sequence[KvPage] = ()
    tokens: bool = False
    distributions: bool = False
    logprobs: bool = False
    choose: Callable[[Distribution], int] | None = None


class ForwardPass:
    """Say what goes in and what comes out, then `execute` it; then it is empty, for the next."""

    def __init__(self, queue: common.Queue) -> None:
        self._raw = forward.create_forward_pass(queue)
        self._asked = _Asked()

    def kv_cache(self, pages: Sequence[KvPage], last_page_length: int) -> None:
        """The pages of the whole context; the last one holds so many tokens after this pass."""
        self._asked.pages = list(pages)
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
        self._asked.distributions = True
        forward.output_distributions(self._raw, list(rows), temperature, top_k)

    def adjust(self, row: int, adjustments: Sequence[Adjustment]) -> None:
        """Changes the logits after a row before anything is drawn: each is a token, a factor that
        divides a logit above 0 and multiplies another, and what is added then."""
        with raised():
            sampling.adjust(self._raw, row, [sampling.Adjustment(*each) for each in adjustments])

    def output_tokens(self, rows: Sequence[int], sampler: Sampler) -> None:
        """Asks for a token after each of these rows; penalties and biases are for `adjust`."""
        if sampler.choose is not None:
            self.output_distributions(rows, sampler.temperature, sampler.top_k)
            self._asked.choose = sampler.choose
            return
        self._asked.tokens = True
        if sampler.seed is not None:
            sampling.set_seed(self._raw, sampler.seed)
        if sampler.logprobs is not None:
            self._asked.logprobs = True
            with raised():
                sampling.want_logprobs(self._raw, sampler.logprobs)
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

    def restrict(self, rows: Sequence[int], matcher: Matcher, guesses: Sequence[int] = ()) -> None:
        """What is asked of the first row must continue the text of `matcher`; what is asked of
        each other one, that text and the guesses before it. Behind a guess that is none, all goes.
        """
        with raised():
            constraints.restrict(self._raw, rows[0], matcher.raw)
        follower = matcher.fork() if guesses else matcher
        for row, guess in zip(rows[1:], guesses, strict=False):
            try:
                follower.advance([guess])
            except ValueError:
                return
            with raised():
                constraints.restrict(self._raw, row, follower.raw)

    def output_next(
        self,
        last: int,
        sampler: Sampler,
        text: Sequence[int],
        generated: Sequence[int] = (),
        guesses: Sequence[int] = (),
    ) -> None:
        """Asks for the token after a text, and after each of the guesses of what follows it, which
        end with the row `last`; with the penalties of `sampler`, which count `generated`."""
        rows = range(last - len(guesses), last + 1)
        self.output_tokens(rows, sampler)
        for place, row in enumerate(rows if sampler.adjusts else ()):
            new = guesses[:place]
            self.adjust(row, sampler.adjustments([*text, *new], [*generated, *new]))
        if sampler.constraint is not None:
            self.restrict(rows, sampler.constraint.after(generated), guesses)

    async def execute(self) -> PassResult:
        """Runs the pass. One without outputs answers at once; synchronize its queue to be sure."""
        pending = self._raw.execute()
        asked, self._asked = self._asked, _Asked()
        if pending is None:
            return PassResult([], [])
        await settled(pending)
        tokens = pending.get_tokens() if asked.tokens else []
        pairs = pending.get_distributions() if asked.distributions else []
        distributions = [Distribution(list(ids), list(shares)) for ids, shares in pairs or []]
        if asked.choose is not None:
            return PassResult([asked.choose(each) for each in distributions], distributions)
        logprobs = sampling.get_logprobs(pending) if asked.logprobs else []
        return PassResult(list(tokens or []), distributions, [*map(Logprobs.of, logprobs or [])])
