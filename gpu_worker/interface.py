"""What serving needs of an executor, whether it computes or pretends.

Owns the facts that an executor states about itself and the protocol that it keeps: one answer for
each request, in order, and a bad request answers for itself alone.
It must never import torch: the pretend worker starts without it.
"""

from typing import Protocol

import attrs

from gpu_worker.wire import BatchArrays, BatchResult

NUMERICS = ("bf16", "int8")  # what a model may be computed with


@attrs.frozen
class Facts:
    """The model and the limits as they were allocated."""

    model: str
    vocab_size: int
    hidden_size: int
    layers: int
    page_size: int
    pages: int
    embeddings: int
    batch_tokens_max: int
    distribution_max: int
    numeric: str


class Executor(Protocol):
    """Keeps the pages and executes one batch at a time."""

    @property
    def facts(self) -> Facts: ...

    def execute(self, batch: BatchArrays) -> BatchResult: ...
