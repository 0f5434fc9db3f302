"""Executes a batch on a real model: copy pages, check, embed, forward, sample.

Owns the model, the pages and the embedding slots. A request that breaks a rule, or whose logits are
not numbers, is answered with an error; the others of its batch get what they would have got alone.
It must never touch a page for a request that it refuses, nor import torch: some kernels need none.
"""

import time
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

import attrs
import numpy as np

from gpu_worker.bf16 import Wide
from gpu_worker.checks import batch_error, lengths_of, owners, request_errors
from gpu_worker.constraints import Allowed, Constraints, Refusal, Written, texts_of
from gpu_worker.interface import Facts
from gpu_worker.kernel_choice import KernelChoice, choose_kernels
from gpu_worker.kernels import Decoder, Step
from gpu_worker.models.config import DecoderConfig
from gpu_worker.models.llama import read_parameters
from gpu_worker.page_count import pages_within
from gpu_worker.sampler import Choice, Distribution, Result, sample
from gpu_worker.weights import Weights
from gpu_worker.wire import Answer, BatchArrays, BatchResult, SamplerKind, WorkerLimits
from gpu_worker.wire.arrays import Array

HEAD_ROWS_MAX = 256  # rows whose logits exist at a time
DISTRIBUTION = int(SamplerKind.DISTRIBUTION)  # numpy takes far longer to compare with the enum
NOT_FINITE = Refusal("the logits are not finite")
NUMERIC = {
    "bf16": "bf16 weights, fp32 arithmetic",
    "int8": "int8 weights and rows by blocks, fp32 sums and attention",
}


def load_executor(directory: Path, limits: WorkerLimits, choice: KernelChoice) -> "ModelExecutor":
    """Packs the weights and takes the pages."""
    config = DecoderConfig.read(directory)
    kernels = choose_kernels(choice, config, limits.page_size)
    numeric = f"{NUMERIC[choice.numeric]}, {kernels.name} kernels"
    facts = facts_of(directory.name, config, limits, numeric)
    parameters = read_parameters(config, Weights(directory))
    decoder = kernels.decoder(config, parameters, facts.pages, facts.page_size)
    constraints = Constraints(directory / "tokenizer.json", config.vocab_size)
    return ModelExecutor(facts, decoder, constraints)


class ModelExecutor:
    """A Llama-family model over paged memory."""

    def __init__(self, facts: Facts, decoder: Decoder, constraints: Constraints) -> None:
        self.facts = facts
        self._decoder = decoder
        self._constraints = constraints
        self._embeddings = np.zeros((facts.embeddings, facts.hidden_size), np.float32)

    def execute(self, batch: BatchArrays) -> BatchResult:
        started = time.perf_counter()
        failure = batch_error(batch, self.facts)
        if failure is None:
            answers = self._answers(batch)
        else:
            self._constraints.prepare(batch.lesson, ())
            answers = (Answer((), (), failure),) * batch.request_count
        step_seconds = time.perf_counter() - started
        return BatchResult(batch.generation, batch.number, step_seconds, answers)

    def _answers(self, batch: BatchArrays) -> tuple[Answer, ...]:
        for source, target in batch.copies.tolist():
            self._decoder.memory.copy_page(source, target)
        errors = request_errors(batch, self.facts)
        if not errors and _is_plain_decoding(batch):
            return self._decoded(batch)
        chosen = np.ones(batch.request_count, dtype=bool)
        if errors:
            chosen[list(errors)] = False
        owner = owners(batch.output_indptr)
        wanted = chosen[owner]
        texts = texts_of(batch, wanted)
        found: dict[int, Result | Refusal] = {}
        with self._constraints.beside(batch.lesson, texts.values()) as allowed:
            if chosen.any():
                hidden = self._forward(batch, chosen)
                outputs = _Outputs(batch, owner, wanted)
                found = self._outputs(outputs, hidden, _Under(texts, allowed()))
        closed = self._go_on(texts, found)
        requests: list[int] = owner.tolist()
        results: list[list[Result]] = [[] for _ in chosen]
        for place, result in sorted(found.items()):
            if isinstance(result, Refusal):
                errors[requests[place]] = result.reason
            else:
                results[requests[place]].append(result)
        ends = {requests[place] for place in closed}
        return tuple(
            Answer((), (), errors[request])
            if request in errors
            else _answer([*chain.from_iterable(parts)], request in ends)
            for request, parts in enumerate(results)
        )

    def _decoded(self, batch: BatchArrays) -> tuple[Answer, ...]:
        """In one call: once all weights have been read, Python is in no cache any more."""
        all_of_them = np.arange(batch.request_count)
        step = Step(batch, all_of_them, all_of_them, self._embeddings)
        best, finite = self._decoder.best_after(step)
        pairs = zip(best.tolist(), finite.tolist(), strict=True)
        return tuple(
            Answer((token,), (), None) if good else Answer((), (), NOT_FINITE.reason)
            for token, good in pairs
        )

    def _go_on(self, texts: Mapping[int, Written], found: dict[int, Result | Refusal]) -> list[int]:
        """The texts under grammars take their tokens: those outputs that are closed by theirs."""
        drawn = {
            place: result[0]
            for place in texts
            if not isinstance(result := found[place], Refusal) and isinstance(result[0], int)
        }
        states = self._constraints.advance([(texts[place], drawn[place]) for place in drawn])
        closed = []
        for place, state in zip(drawn, states, strict=True):
            if isinstance(state, Refusal):
                found[place] = state
            elif state:
                closed.append(place)
        return closed

    def _forward(self, batch: BatchArrays, chosen: Array) -> Wide:
        """Final hidden rows in the rows' places; those of requests left out are undefined."""
        rows = chosen.repeat(lengths_of(batch.row_indptr)).nonzero()[0]
        step = Step(batch, chosen.nonzero()[0], rows, self._embeddings)
        hidden = self._decoder.forward(step)
        if len(rows) < len(batch.tokens):
            placed = np.empty((len(batch.tokens), hidden.shape[1]), np.float32)
            placed[rows] = hidden
            hidden = placed
        if len(batch.embed_rows):
            self._keep_embeddings(batch, chosen, hidden)
        return hidden

    def _keep_embeddings(self, batch: BatchArrays, chosen: Array, hidden: Wide) -> None:
        owner = owners(batch.embed_indptr)
        kept = chosen[owner]
        rows = (batch.row_indptr[owner] + batch.embed_rows)[kept]
        for slot, row in zip(batch.embed_slots[kept].tolist(), rows.tolist(), strict=True):
            self._embeddings[slot] = hidden[row]

    def _outputs(
        self, outputs: "_Outputs", hidden: Wide, under: "_Under"
    ) -> dict[int, Result | Refusal]:
        """Every output that is wanted, or why there is none."""
        found = under.refused()
        wanted, is_best, rows = outputs.wanted, _are_plainly_best(outputs.batch), outputs.rows()
        if found:
            wanted[list(found)] = False
        for part in _parts(wanted & is_best):
            best = self._best(_taken(hidden, rows[part]))
            found |= zip(part.tolist(), best, strict=True)
        for part in _parts(wanted & ~is_best):
            choices = [outputs.choice(i, under.allowed(i)) for i in part.tolist()]
            sampled = self._sampled(_taken(hidden, rows[part]), choices)
            found |= zip(part.tolist(), sampled, strict=True)
        return found

    def _best(self, hidden: Wide) -> list[Result | Refusal]:
        best, finite = self._decoder.best(hidden)
        pairs = zip(best.tolist(), finite.tolist(), strict=True)
        return [(token,) if good else NOT_FINITE for token, good in pairs]

    def _sampled(self, hidden: Wide, choices: list[Choice]) -> list[Result | Refusal]:
        logits = self._decoder.logits(hidden)
        finite = np.asarray(np.isfinite(logits).all(axis=-1))
        if not finite.all():
            logits = np.where(finite[:, None], logits, np.float32(0))
        results = sample(logits, choices, self.facts.distribution_max)
        return [r if good else NOT_FINITE for r, good in zip(results, finite.tolist(), strict=True)]


@attrs.frozen
class _Under:
    """The outputs of a batch that are under a grammar, and what may follow their texts."""

    texts: Mapping[int, Written]
    followers: Allowed

    def allowed(self, place: int) -> Array | None:
        found = self.followers.get(self.texts.get(place, b""))
        return None if isinstance(found, Refusal) else found

    def refused(self) -> dict[int, Result | Refusal]:
        found = {place: self.followers[text] for place, text in self.texts.items()}
        return {place: why for place, why in found.items() if isinstance(why, Refusal)}


@attrs.frozen(eq=False)
class _Outputs:
    """The outputs of a batch, the request of each, and which of them are wanted."""

    batch: BatchArrays
    owner: Array
    wanted: Array

    def rows(self) -> Array:
        rows: Array = self.batch.row_indptr[self.owner] + self.batch.output_rows
        return rows

    def choice(self, place: int, allowed: Array | None) -> Choice:
        return Choice(self.batch.output(place), int(self.batch.seeds[self.owner[place]]), allowed)


def _is_plain_decoding(batch: BatchArrays) -> bool:
    """Whether each request, all of which are sound, has one row and wants but its best token."""
    count = batch.request_count
    if not 0 < count == len(batch.tokens) == len(batch.output_rows) <= HEAD_ROWS_MAX:
        return False
    if batch.lesson is not None or len(batch.embed_rows):
        return False
    is_one_each = batch.output_indptr == np.arange(count + 1)
    return bool(is_one_each.all()) and bool(_are_plainly_best(batch).all())


def _are_plainly_best(batch: BatchArrays) -> Array:
    """Of which outputs the likeliest token is all that is wanted: nobody needs their logits."""
    best = (batch.temperatures == 0) & (batch.output_kinds != DISTRIBUTION)
    best &= batch.logprobs == 0
    if len(batch.adjustments):
        best &= lengths_of(batch.adjustment_indptr) == 0
    if len(batch.written):
        best &= lengths_of(batch.written_indptr) == 0
    return np.asarray(best)


def _taken(hidden: Wide, rows: Array) -> Wide:
    """Some rows, or all of them as they are."""
    if len(rows) == len(hidden) and (rows == np.arange(len(rows))).all():
        return hidden
    return hidden[rows]


def _parts(marked: Array) -> Iterator[Array]:
    """The indices that are marked, as many at a time as may have logits."""
    indices = marked.nonzero()[0]
    for start in range(0, len(indices), HEAD_ROWS_MAX):
        yield indices[start : start + HEAD_ROWS_MAX]


def _answer(results: list[int | Distribution], is_closed: bool) -> Answer:
    tokens = tuple(result for result in results if isinstance(result, int))
    distributions = tuple(result for result in results if not isinstance(result, int))
    return Answer(tokens, distributions, None, is_closed)


def facts_of(name: str, config: DecoderConfig, limits: WorkerLimits, numeric: str) -> Facts:
    return Facts(
        model=name,
        vocab_size=config.vocab_size,
        hidden_size=config.hidden,
        layers=config.layers,
        page_size=limits.page_size,
        pages=pages_within(limits, config.layers, config.key_heads, config.head_width),
        embeddings=limits.embeddings,
        batch_tokens_max=limits.batch_tokens_max,
        distribution_max=limits.distribution_max,
        numeric=numeric,
    )
