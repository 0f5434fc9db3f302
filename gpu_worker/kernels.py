"""What an executor needs of the arithmetic beneath it, in plain torch or in C.

Owns the protocols. A decoder computes whole passes: in torch layer by layer, in C in one call. Both
kinds give the same numbers within fp32 rounding; they differ in how weights and pages lie in
memory, which nobody else sees.
It must never know a model's file, nor what is wanted of a hidden row.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import attrs
import torch

from gpu_worker.models.config import DecoderConfig
from gpu_worker.wire import BatchArrays
from gpu_worker.wire.arrays import Array


def _parts(given: torch.Tensor | Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    return (given,) if isinstance(given, torch.Tensor) else tuple(given)


@attrs.frozen(eq=False)
class Parameter:
    """rows @ weight.T + bias; the weight as it was stored, the bias in fp32.

    A weight of several parts, one below the other, is put together only where it is asked for.
    """

    parts: tuple[torch.Tensor, ...] = attrs.field(converter=_parts)
    bias: torch.Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(outputs, depth)"""
        return sum(len(part) for part in self.parts), self.parts[0].shape[1]

    @property
    def weight(self) -> torch.Tensor:
        return self.parts[0] if len(self.parts) == 1 else torch.cat(self.parts)


@attrs.frozen(eq=False)
class LayerParameters:
    """Matrices that read the same rows are joined; norms are in fp32."""

    attention_norm: torch.Tensor
    query_key_value: Parameter
    attended: Parameter
    feed_norm: torch.Tensor
    gate_up: Parameter
    down: Parameter


@attrs.frozen(eq=False)
class Parameters:
    """`frequencies` is one angle per position and pair of dimensions. Layers are read one by one,
    so that only one lies in memory as it was stored.
    """

    embedding: torch.Tensor
    frequencies: torch.Tensor
    layers: Iterator[LayerParameters]
    norm: torch.Tensor
    head: Parameter


@attrs.frozen(eq=False)
class Step:
    """The requests of a batch that are executed, and which of its rows are theirs.

    Token -1-s reads row s of `slots`.
    """

    batch: BatchArrays
    requests: Array
    rows: Array
    slots: torch.Tensor


class Memory(Protocol):
    """The pages of one model."""

    keys: torch.Tensor
    values: torch.Tensor

    def copy_page(self, source: int, target: int) -> None: ...


class Decoder(Protocol):
    """One model over its own pages."""

    @property
    def memory(self) -> Memory: ...

    def forward(self, step: Step) -> torch.Tensor:
        """Appends the step's rows to their pages; the result is their final hidden rows, normed."""
        ...

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[row, token]"""
        ...

    def best(self, hidden: torch.Tensor) -> tuple[Array, Array]:
        """The first of the tokens with the greatest logit, and whether all logits are finite."""
        ...


class Kernels(Protocol):
    """One kind of arithmetic."""

    @property
    def name(self) -> str: ...

    def decoder(
        self, config: DecoderConfig, parameters: Parameters, pages: int, page_size: int
    ) -> Decoder: ...
