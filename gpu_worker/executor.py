"""Executes a batch on a real model: copy pages, check, embed, forward, sample.

Owns the model, the pages and the embedding slots. A request that breaks a rule, or whose logits are
not numbers, is answered with an error; the others of its batch get what they would have got alone.
It must never touch a page for a request that it refuses.
"""

import os
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import attrs
import numpy as np
import torch

from gpu_worker.checks import batch_error, owners, request_errors
from gpu_worker.interface import Facts
from gpu_worker.kernel_choice import KernelChoice, choose_kernels
from gpu_worker.kv_cache import pages_within
from gpu_worker.models.config import DecoderConfig
from gpu_worker.models.llama import Llama
from gpu_worker.sampler import Choice, Distribution, sample
from gpu_worker.weights import Weights
from gpu_worker.wire import Answer, BatchArrays, BatchResult, WorkerLimits
from gpu_worker.wire.arrays import Array

HEAD_ROWS_MAX = 256  # rows whose logits exist at a time
NUMERIC = "bf16 weights, fp32 arithmetic"


def load_executor(
    directory: Path, limits: WorkerLimits, choice: KernelChoice, threads: int = 0
) -> "TorchExecutor":
    """Packs the weights and takes the pages; `threads` nought means one for each usable core."""
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    with torch.inference_mode():
        config = DecoderConfig.read(directory)
        kernels = choose_kernels(choice, config, limits.page_size)
        model = Llama(config, Weights(directory), kernels)
        return TorchExecutor(directory.name, model, limits)


@attrs.frozen
class _Selection:
    """The requests that are executed, and which of the batch's rows are theirs."""

    requests: list[int]
    rows: Array
    first_row: dict[int, int]  # of each request, counted among the selected rows


class TorchExecutor:
    """A Llama-family model over paged memory."""

    def __init__(self, name: str, model: Llama, limits: WorkerLimits) -> None:
        config = model.config
        pages = pages_within(limits, config.layers, config.key_heads, config.head_width)
        self.facts = _facts(name, model, limits, pages)
        self._model = model
        self._memory = model.kernels.memory(config, pages, limits.page_size)
        self._embeddings = torch.zeros(limits.embeddings, config.hidden)

    @torch.inference_mode()
    def execute(self, batch: BatchArrays) -> BatchResult:
        started = time.perf_counter()
        failure = batch_error(batch, self.facts)
        if failure is None:
            answers = self._answers(batch)
        else:
            answers = (Answer((), (), failure),) * batch.request_count
        step_seconds = time.perf_counter() - started
        return BatchResult(batch.generation, batch.number, step_seconds, answers)

    def _answers(self, batch: BatchArrays) -> tuple[Answer, ...]:
        for source, target in batch.copies.tolist():
            self._memory.copy_page(source, target)
        errors = request_errors(batch, self.facts)
        selection = _select(batch, errors)
        results: dict[int, list[int | Distribution]] = defaultdict(list)
        if selection.requests:
            hidden = self._forward(batch, selection)
            for request, result in self._outputs(batch, selection, hidden):
                if result is None:
                    errors[request] = "the logits are not finite"
                else:
                    results[request].append(result)
        return tuple(
            Answer((), (), errors[request]) if request in errors else _answer(results[request])
            for request in range(batch.request_count)
        )

    def _forward(self, batch: BatchArrays, selection: _Selection) -> torch.Tensor:
        tokens = torch.from_numpy(batch.tokens[selection.rows].astype(np.int64))
        positions = torch.from_numpy(batch.positions[selection.rows].astype(np.int64))
        rows = self._model.embed(tokens.clamp_min(0))
        if bool((tokens < 0).any()):
            given = tokens < 0
            rows[given] = self._embeddings[-1 - tokens[given]]
        angles = self._model.angles(positions)
        attend = self._memory.attention(batch, selection.requests, angles)
        hidden = self._model.forward(rows, attend)
        self._keep_embeddings(batch, selection, hidden)
        return hidden

    def _keep_embeddings(
        self, batch: BatchArrays, selection: _Selection, hidden: torch.Tensor
    ) -> None:
        for index, request in enumerate(owners(batch.embed_indptr).tolist()):
            if request in selection.first_row:
                row = selection.first_row[request] + int(batch.embed_rows[index])
                self._embeddings[int(batch.embed_slots[index])] = hidden[row]

    def _outputs(
        self, batch: BatchArrays, selection: _Selection, hidden: torch.Tensor
    ) -> Iterator[tuple[int, int | Distribution | None]]:
        """Each wanted output with its request, in order; none where the logits are no numbers."""
        wanted = [
            (request, index)
            for index, request in enumerate(owners(batch.output_indptr).tolist())
            if request in selection.first_row
        ]
        for start in range(0, len(wanted), HEAD_ROWS_MAX):
            part = wanted[start : start + HEAD_ROWS_MAX]
            rows = [selection.first_row[r] + int(batch.output_rows[i]) for r, i in part]
            choices = [Choice(batch.output(i), int(batch.seeds[r])) for r, i in part]
            logits = self._model.logits(hidden[rows])
            finite = torch.isfinite(logits.sum(dim=-1)).tolist()
            results = sample(logits.nan_to_num(), choices, self.facts.distribution_max)
            for (request, _), good, result in zip(part, finite, results, strict=True):
                yield request, result if good else None


def _select(batch: BatchArrays, errors: dict[int, str]) -> _Selection:
    requests = [request for request in range(batch.request_count) if request not in errors]
    first_row: dict[int, int] = {}
    parts = [np.zeros(0, dtype=np.int64)]
    count = 0
    for request in requests:
        begin, end = int(batch.row_indptr[request]), int(batch.row_indptr[request + 1])
        first_row[request] = count
        count += end - begin
        parts.append(np.arange(begin, end))
    return _Selection(requests, np.concatenate(parts), first_row)


def _answer(results: list[int | Distribution]) -> Answer:
    tokens = tuple(result for result in results if isinstance(result, int))
    distributions = tuple(result for result in results if not isinstance(result, int))
    return Answer(tokens, distributions, None)


def _facts(name: str, model: Llama, limits: WorkerLimits, pages: int) -> Facts:
    config = model.config
    return Facts(
        model=name,
        vocab_size=config.vocab_size,
        hidden_size=config.hidden,
        layers=config.layers,
        page_size=limits.page_size,
        pages=pages,
        embeddings=limits.embeddings,
        batch_tokens_max=limits.batch_tokens_max,
        distribution_max=limits.distribution_max,
        numeric=f"{NUMERIC}, {model.kernels.name} kernels",
    )
