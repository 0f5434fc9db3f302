"""What an executor needs of the arithmetic beneath it, in plain torch or in C.

Owns the protocols. A decoder computes whole passes: in torch layer by layer, in C in one call. Both
kinds give the same numbers within fp32 rounding; they differ in how weights and pages lie in
memory, which nobody else sees.
It must never know a model's file, nor what is wanted of a hidden row, nor import torch: a worker
with compiled kernels starts without it.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import attrs
import numpy as np

from gpu_worker.bf16 import Bf16, Wide, in_bf16
from gpu_worker.models.config import DecoderConfig
from gpu_worker.wire import BatchArrays
from gpu_worker.wire.arrays import Array


def _parts(given: Array | Sequence[Array]) -> tuple[Array, ...]:
    return (given,) if isinstance(given, np.ndarray) else tuple(given)


@attrs.frozen(eq=False)
class Parameter:
    """rows @ weight.T + bias; the weight as it was stored (bf16 in words), the bias in fp32.

    A weight of several parts, one below the other, is put together only where it is asked for.
    """

    parts: tuple[Array, ...] = attrs.field(converter=_parts)
    bias: Wide | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(outputs, depth)"""
        return sum(len(part) for part in self.parts), self.parts[0].shape[1]

    @property
    def weight(self) -> Array:
        return self.parts[0] if len(self.parts) == 1 else np.concatenate(self.parts)

    @property
    def rounded(self) -> Bf16:
        """The weight in bf16, its rows one after the other."""
        return np.ascontiguousarray(in_bf16(self.weight))


@attrs.frozen(eq=False)
class LayerParameters:
    """Matrices that read the same rows are joined; norms are in fp32."""

    attention_norm: Wide
    query_key_value: Parameter
    attended: Parameter
    feed_norm: Wide
    gate_up: Parameter
    down: Parameter


@attrs.frozen(eq=False)
class Parameters:
    """`frequencies` is one angle per position and pair of dimensions. Layers are read one by one,
    so that only one lies in memory as it was stored.
    """

    embedding: Array
    frequencies: Wide
    layers: Iterator[LayerParameters]
    norm: Wide
    head: Parameter


@attrs.frozen(eq=False)
class Step:
    """The requests of a batch that are executed, and which of its rows are theirs.

    Token -1-s reads row s of `slots`.
    """

    batch: BatchArrays
    requests: Array
    rows: Array
    slots: Wide


class Memory(Protocol):
    """The pages of one model."""

    def copy_page(self, source: int, target: int) -> None: ...


class Decoder(Protocol):
    """One model over its own pages."""

    @property
    def memory(self) -> Memory: ...

    def forward(self, step: Step) -> Wide:
        """Appends the step's rows to their pages; the result is their final hidden rows, normed."""
        ...

    def best_after(self, step: Step) -> tuple[Array, Array]:
        """Appends the step's rows; then what `best` says of each of them."""
        ...

    def logits(self, hidden: Wide) -> Wide:
        """[row, token]"""
        ...

    def best(self, hidden: Wide) -> tuple[Array, Array]:
        """The first of the tokens with the greatest logit, and whether all logits are finite."""
        ...


class Kernels(Protocol):
    """One kind of arithmetic."""

    @property
    def name(self) -> str: ...

    def decoder(
        self, config: DecoderConfig, parameters: Parameters, pages: int, page_size: int
    ) -> Decoder: ...
