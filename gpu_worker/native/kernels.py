"""The arithmetic in C.

Owns the weights, packed once as panels of bf16 and read as such for any number of rows, so that
logits depend on the composition of a batch by fp32 rounding alone. A panel is half as large as
oneDNN's fp32 packing, which is what few rows wait for, and for many rows both are bound by the
multiplier.
It must never be made for a shape that the kernels do not cover (`covers`).
"""

import torch

from gpu_worker.kernels import Linear
from gpu_worker.models.config import DecoderConfig
from gpu_worker.native.library import Library
from gpu_worker.native.memory import PagedMemory

PAGE_SIZE = 16
LANES = 8


def covers(config: DecoderConfig, page_size: int) -> bool:
    return page_size == PAGE_SIZE and config.head_width % LANES == 0


class NativeKernels:
    """One compiled variant."""

    def __init__(self, library: Library, variant: str) -> None:
        self.name = variant
        self._library = library
        self.add_norm = library.add_norm
        self.gated = library.gated

    def memory(self, config: DecoderConfig, pages: int, page_size: int) -> PagedMemory:
        return PagedMemory(self._library, config, pages, page_size)

    def linear(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
        return PanelLinear(self._library, weight.to(torch.bfloat16), bias)


class PanelLinear:
    """rows @ weight.T + bias, from panels of bf16."""

    def __init__(self, library: Library, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._call = library.linear_call
        self._outputs, self._depth = weight.shape
        self._panels = library.pack(weight)
        self._bias = bias
        self._bias_at = None if bias is None else bias.data_ptr()
        self._panels_at = self._panels.data_ptr()

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        result = torch.empty(len(rows), self._outputs)
        self._call(
            *(rows.data_ptr(), len(rows), self._depth, self._panels_at, self._bias_at),
            *(result.data_ptr(), self._outputs),
        )
        return result
