"""What a decoder needs of the arithmetic beneath it, in plain torch or in C.

Owns the protocols, so that a decoder is written once. Both kinds give the same numbers within fp32
rounding; they differ in how weights and pages lie in memory, which nobody else sees.
It must never know a model's architecture.
"""

from collections.abc import Callable
from typing import Protocol

import torch

from gpu_worker.models.config import DecoderConfig
from gpu_worker.wire import BatchArrays

Linear = Callable[[torch.Tensor], torch.Tensor]  # rows @ weight.T + bias
# (layer, rows of joined queries, keys and values) -> attended rows; the rows are appended first.
Attend = Callable[[int, torch.Tensor], torch.Tensor]


class Memory(Protocol):
    """The pages of one model."""

    keys: torch.Tensor
    values: torch.Tensor

    def copy_page(self, source: int, target: int) -> None: ...

    def attention(self, batch: BatchArrays, requests: list[int], angles: torch.Tensor) -> Attend:
        """What one batch means for attention; `angles` [row, pair] of these requests' rows."""
        ...


class Kernels(Protocol):
    """One kind of arithmetic."""

    @property
    def name(self) -> str: ...

    def memory(self, config: DecoderConfig, pages: int, page_size: int) -> Memory: ...

    def linear(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
        """`weight` is as it was stored, `bias` in fp32."""
        ...

    def add_norm(
        self,
        hidden: torch.Tensor,
        change: torch.Tensor | None,
        weight: torch.Tensor,
        epsilon: float,
    ) -> torch.Tensor:
        """Adds the change to `hidden` where it lies; the result is its norm."""
        ...

    def gated(self, joined: torch.Tensor) -> torch.Tensor:
        """silu(gate) * up, of rows that hold both one behind the other."""
        ...
