"""An executor without a model: the next token is a checksum of everything read from the pages.

Owns a digest for each KV slot: of the token (or embedding) and the position that was written there.
A row folds the digests that its mask lets it see, in slot order; so a stale, foreign, missing or
half-written page shows as another text. Masked slots leave no trace, as in a real model.
It must never import torch, and never let a row see more than its pages under its mask.
"""

import json
import struct
import time
from pathlib import Path

import attrs
import numpy as np
import numpy.typing as npt

from gpu_worker.checks import batch_error, owners, request_errors
from gpu_worker.constraints import Allowed, Constraints, Refusal, Written, texts_of
from gpu_worker.interface import Facts
from gpu_worker.mixing import mix
from gpu_worker.wire import (
    Answer,
    BatchArrays,
    BatchResult,
    OutputRow,
    Request,
    SamplerKind,
    WorkerLimits,
)
from gpu_worker.wire.arrays import Array

PAGE_BYTES_PER_TOKEN = 4096  # what a slot of a small model would take, to size the page pool
PRINTABLE_FIRST, PRINTABLE_COUNT = 32, 95

_WEIGHTS = np.power(2 / 3, np.arange(PRINTABLE_COUNT))
_SHARES = _WEIGHTS / _WEIGHTS.sum()  # of the tokens, from the likeliest to the least likely

Digests = npt.NDArray[np.uint64]


@attrs.frozen
class Pace:
    """How long a step lasts, and how often (once in `end_every`; 0 = never) a row says the end."""

    step_seconds: float = 0.0
    row_seconds: float = 0.0
    end_every: int = 0


@attrs.frozen
class PretendModel:
    """What the pretend worker reads of a model directory."""

    name: str = "pretend"
    vocab_size: int = 264
    end_token: int = 258
    tokenizer: Path = Path("tokenizer.json")

    @classmethod
    def read(cls, directory: Path) -> "PretendModel":
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        sizes = int(config["vocab_size"]), int(config["eos_token_id"])
        return cls(directory.name, *sizes, directory / "tokenizer.json")


class PretendExecutor:
    """Keeps digests instead of keys and values; everything else is as in a real worker."""

    def __init__(self, model: PretendModel, limits: WorkerLimits, pace: Pace) -> None:
        self._model = model
        self._pace = pace
        self.facts = _facts(model, limits)
        self._constraints = Constraints(model.tokenizer, model.vocab_size)
        self._slots = np.zeros((self.facts.pages, limits.page_size), dtype=np.uint64)
        self._embeddings = np.zeros(limits.embeddings, dtype=np.uint64)

    def execute(self, batch: BatchArrays) -> BatchResult:
        started = time.perf_counter()
        failure = batch_error(batch, self.facts)
        if failure is None:
            answers = self._answers(batch)
        else:
            self._constraints.prepare(batch.lesson, ())
            answers = (Answer((), (), failure),) * batch.request_count
        self._last(started, len(batch.tokens))
        step_seconds = time.perf_counter() - started
        return BatchResult(batch.generation, batch.number, step_seconds, answers)

    def _last(self, started: float, rows: int) -> None:
        until = started + self._pace.step_seconds + rows * self._pace.row_seconds
        left = until - time.perf_counter()
        if left > 0:
            time.sleep(left)

    def _answers(self, batch: BatchArrays) -> tuple[Answer, ...]:
        for source, target in batch.copies.tolist():
            self._slots[target] = self._slots[source]
        errors = request_errors(batch, self.facts)
        is_good = ~np.isin(owners(batch.output_indptr), list(errors))
        allowed = self._constraints.prepare(batch.lesson, texts_of(batch, is_good).values())
        requests = [batch.request(index) for index in range(batch.request_count)]
        good = [request for index, request in enumerate(requests) if index not in errors]
        # Every request writes before any reads: a later one may continue an earlier one's pages.
        for request in good:
            self._append(request)
        return tuple(
            Answer((), (), errors[index]) if index in errors else self._answer(request, allowed)
            for index, request in enumerate(requests)
        )

    def _slot_places(self, request: Request) -> tuple[npt.NDArray[np.int64], int]:
        """The flat place of every KV slot of the context, and how many there are."""
        size = self.facts.page_size
        total = (len(request.pages) - 1) * size + request.last_page_length
        pages = np.asarray(request.pages, dtype=np.int64)
        return (pages[:, None] * size + np.arange(size)).ravel()[:total], total

    def _append(self, request: Request) -> None:
        places, total = self._slot_places(request)
        digests = [
            mix(int(self._embeddings[-1 - token]) if token < 0 else token, position)
            for token, position in zip(request.tokens, request.positions, strict=True)
        ]
        self._slots.reshape(-1)[places[total - len(digests) :]] = np.array(digests, dtype=np.uint64)

    def _answer(self, request: Request, allowed: Allowed) -> Answer:
        places, total = self._slot_places(request)
        context = self._slots.reshape(-1)[places]
        sums: dict[int, int] = {}
        for row in {output.row for output in request.outputs} | {
            r for r, _ in request.embed_outputs
        }:
            sums[row] = _checksum(_visible(context, request, row, total))
        for row, slot in request.embed_outputs:
            self._embeddings[slot] = sums[row]
        tokens: list[int] = []
        lists: list[tuple[list[int], list[float]]] = []
        drawn: list[tuple[Written, int]] = []
        for output in request.outputs:
            checksum, among = sums[output.row], allowed.get(output.written)
            if isinstance(among, Refusal):
                return Answer((), (), among.reason)
            if output.kind is SamplerKind.DISTRIBUTION:
                lists.append(self._distribution(output, checksum, among))
                continue
            tokens.append(self._token(request.seed, output, checksum, among))
            if output.logprobs:
                lists.append(_logprobs(tokens[-1], output.logprobs - 1, checksum))
            if among is not None:
                drawn.append((output.written, tokens[-1]))
        states = self._constraints.advance(drawn)
        for state in states:
            if isinstance(state, Refusal):
                return Answer((), (), state.reason)
        return Answer(tuple(tokens), tuple(lists), None, any(states))

    def _token(self, seed: int, output: OutputRow, checksum: int, among: Array | None) -> int:
        checksum ^= _digest(output.adjustments)
        if output.temperature > 0:
            checksum = mix(checksum ^ mix(seed, output.row), 0)
        says_end = self._pace.end_every and (checksum >> 32) % self._pace.end_every == 0
        if says_end and (among is None or self._model.end_token in among):
            return self._model.end_token
        if among is not None:
            return int(among[checksum % len(among)])
        return PRINTABLE_FIRST + checksum % PRINTABLE_COUNT

    def _distribution(
        self, output: OutputRow, checksum: int, among: Array | None
    ) -> tuple[list[int], list[float]]:
        """The greedy token first, then its neighbours, each with two thirds of the last one."""
        count = PRINTABLE_COUNT if among is None else min(len(among), PRINTABLE_COUNT)
        room = min(self.facts.distribution_max, count)
        wanted = min(output.top_k or room, room)
        if among is None:
            ids = _likeliest(checksum, wanted)
        else:
            ids = [int(among[(checksum + i) % len(among)]) for i in range(wanted)]
        return ids, (_SHARES[:wanted] / _SHARES[:count].sum()).tolist()


def _likeliest(checksum: int, count: int) -> list[int]:
    return [PRINTABLE_FIRST + (checksum + i) % PRINTABLE_COUNT for i in range(count)]


def _logprobs(token: int, count: int, checksum: int) -> tuple[list[int], list[float]]:
    """Of the token and of so many of the likeliest; adjustments change nothing about them."""
    ids = [token, *_likeliest(checksum, min(count, PRINTABLE_COUNT))]
    ranks = [(each - PRINTABLE_FIRST - checksum) % PRINTABLE_COUNT for each in ids]
    return ids, np.log(_SHARES[ranks]).tolist()


def _digest(adjustments: bytes) -> int:
    """In whatever order they stand; nought if there are none."""
    return sum(mix(*record) for record in struct.iter_unpack("<Qi", adjustments)) & 2**64 - 1


def _facts(model: PretendModel, limits: WorkerLimits) -> Facts:
    pages = limits.pages_max
    if pages is None:
        pages = max(1, limits.kv_bytes_max // (limits.page_size * PAGE_BYTES_PER_TOKEN))
    return Facts(
        model=model.name,
        vocab_size=model.vocab_size,
        hidden_size=1,
        layers=1,
        page_size=limits.page_size,
        pages=pages,
        embeddings=limits.embeddings,
        batch_tokens_max=limits.batch_tokens_max,
        distribution_max=limits.distribution_max,
        numeric="pretend",
    )


def _visible(context: Digests, request: Request, row: int, total: int) -> Digests:
    if request.mask is None:
        return context[: total - len(request.tokens) + row + 1]
    flat = request.mask[row]
    parts = [context[a:b] for a, b in zip(flat[::2], flat[1::2], strict=True)]
    return np.concatenate([context[:0], *parts])


def _checksum(digests: Digests) -> int:
    """Each digest is turned by its rank before it is added, so that order and number count."""
    ranks = np.arange(1, len(digests) + 1, dtype=np.uint64)
    turned = digests * (ranks * np.uint64(2) + np.uint64(1)) + ranks
    turned ^= turned >> np.uint64(29)
    turned *= np.uint64(0xBF58476D1CE4E5B9)
    return mix(int(turned.sum(dtype=np.uint64)), len(digests))
