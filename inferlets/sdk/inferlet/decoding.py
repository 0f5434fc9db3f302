"""Decoder: a sequence is continued by the model itself, step after step, without waking us.

Its tokens arrive in chunks and are given out one by one, or as many as are there: the sequence is
as if those alone had been computed. What was decoded ahead is forgotten when the sequence changes.
Cancelled: the tokens that were given out are all that happened.
"""

from __future__ import annotations

from wit_world.imports import generate

from inferlet.constraint import Constraint
from inferlet.errors import raised
from inferlet.forward import Logprobs
from inferlet.generation import CHUNK_TOKENS, Verified
from inferlet.host import settled
from inferlet.queue import Queue
from inferlet.sampler import Sampler
from inferlet.sequence import Tokens, TokenSequence
from inferlet.stop import StopCondition

RESERVE_PAGES = 8  # that a sequence takes in advance, or as many as it has; then it asks again


class Decoder:
    """Of one queue; it decodes one sequence at a time."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._stream: generate.TokenStream | None = None
        self._ahead: list[int] = []
        self._told: list[Logprobs] = []  # of those tokens, if the sampler wants it
        self._wants_logprobs = False
        self._tokens_told = 0
        self._state: object = None  # of the sequence, as we left it

    async def next_tokens(
        self,
        sequence: TokenSequence,
        sampler: Sampler,
        stop: StopCondition,
        generated: Tokens,
        at_once: int,
    ) -> Verified:
        """Adds a token to the sequence, or as many as are there up to `at_once`, until `stop`
        ends those that are generated."""
        if self._state != _state_of(sequence):
            self.end(sequence)
        while not await self._has_ahead():  # there is no stream, or it has filled its pages
            self.end(sequence)
            if end := end_after(sampler.constraint, generated):
                sequence.fill(end)
                return Verified(end)
            self._stream = self._start(sequence, sampler, stop, generated)
            self._wants_logprobs = sampler.logprobs is not None
            self._state = _state_of(sequence)
        new, told = self._ahead[:at_once], self._told[:at_once]
        del self._ahead[:at_once], self._told[:at_once]
        sequence.fill(new)
        sequence.held = len(sequence.tokens) - 1
        self._state = _state_of(sequence)
        return Verified(new, [], told, is_checked=True)

    def end(self, sequence: TokenSequence) -> None:
        """The model stops with the step in flight; pages that hold nothing go back."""
        if self._stream is not None:
            self._stream.__exit__(None, None, None)
            self._stream = None
            self._ahead.clear()
            self._told.clear()
            sequence.trim()

    async def _has_ahead(self) -> bool:
        """False when nothing is left to take."""
        while not self._ahead:
            if self._stream is None:
                return False
            await settled(self._stream)
            with raised():
                self._ahead += self._stream.read(CHUNK_TOKENS)
            if self._wants_logprobs:
                self._read_logprobs(self._stream)
            if not self._ahead and self._stream.finished() is not None:
                return False
        return True

    def _read_logprobs(self, stream: generate.TokenStream) -> None:
        found = stream.logprobs(self._tokens_told, len(self._ahead))
        self._tokens_told += len(found)
        self._told.extend(map(Logprobs.of, found))

    def _start(
        self,
        sequence: TokenSequence,
        sampler: Sampler,
        stop: StopCondition,
        generated: Tokens,
    ) -> generate.TokenStream:
        tokens_max = stop.tokens_max - len(generated)
        size, start, end = sequence.page_size, sequence.held, len(sequence.tokens)
        if end <= start:
            raise RuntimeError("nothing is pending: fill the context first")
        if tokens_max < 1 or end - 1 in sequence.visibility.own_rows:
            tokens_max = 1  # those behind it do not see what this one sees
        used = -(-end // size)
        wanted = min(-(-(end + tokens_max - 1) // size), used + max(used, RESERVE_PAGES))
        if wanted > len(sequence.pages):
            sequence.pages += self._queue.allocate_pages(wanted - len(sequence.pages))
        rows = sequence.visibility.rows(start, end)
        handles = [page.handle for page in sequence.pages]
        request = generate.Request(
            tokens=sequence.tokens[start:end],
            positions=sequence.positions[start:end],
            pages=handles[:used],
            last_page_len=(end - 1) % size + 1,
            reserve=handles[used:],
            mask=None if rows is None else [list(row.runs) for row in rows],
            sampler=_controls_of(sampler),
            stop_tokens=list(stop.tokens),
            stop_sequences=[list(each) for each in stop.sequences],
            max_tokens=min(tokens_max, len(handles) * size - end + 1),
            earlier=sequence.tokens[:start] if sampler.repetition_penalty != 1 else [],
            generated=list(generated if sampler.counts_text else generated[-1:]),
        )
        self._tokens_told = 0
        constraint = sampler.constraint
        under = None if constraint is None else constraint.after(generated)
        return self._queue.decode(request, under)


def end_after(constraint: Constraint | None, generated: Tokens) -> list[int]:
    """The token that ends a text, if the constraint lets nothing else follow: no pass is needed."""
    closed = constraint is not None and constraint.after(generated).is_closed
    return [constraint.end] if constraint is not None and closed else []


def can_decode(sampler: Sampler, is_plain: bool) -> bool:
    """Whether the model can do it by itself; a plain generation has nothing to do at each step."""
    return is_plain and sampler.choose is None


def _controls_of(sampler: Sampler) -> generate.Sampler:
    return generate.Sampler(
        temperature=sampler.temperature,
        top_k=sampler.top_k,
        top_p=sampler.top_p,
        min_p=sampler.min_p,
        seed=sampler.seed,
        repetition_penalty=sampler.repetition_penalty,
        frequency_penalty=sampler.frequency_penalty,
        presence_penalty=sampler.presence_penalty,
        logit_bias=list(sampler.bias.items()),
        logprobs=sampler.logprobs,
    )


def _state_of(sequence: TokenSequence) -> object:
    """Changes with everything on which tokens decoded ahead depend."""
    seen = sequence.visibility
    return len(sequence.tokens), sequence.held, tuple(seen.mask.runs), len(seen.own_rows)
