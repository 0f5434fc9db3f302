"""The arithmetic in C, and oneDNN's for many rows.

Owns the choice between two packings of the same bf16 values: our own panels, read as bf16, are
faster for few rows because they are half as large; oneDNN's fp32 packing is faster for many. Both
compute in fp32, so the choice shows in no more than rounding.
It must never be made for a shape that the kernels do not cover (`covers`).
"""

import torch

from gpu_worker.kernels import Linear
from gpu_worker.models.config import DecoderConfig
from gpu_worker.models.linear import WideLinear
from gpu_worker.native.library import Library
from gpu_worker.native.memory import PagedMemory

PAGE_SIZE = 16
LANES = 8
NARROW_ROWS_MAX = 8


def covers(config: DecoderConfig, page_size: int) -> bool:
    return page_size == PAGE_SIZE and config.head_width % LANES == 0


class NativeKernels:
    """`keeps_wide`: whether there is memory for the second packing."""

    def __init__(self, library: Library, variant: str, keeps_wide: bool) -> None:
        self.name = variant
        self._library, self._keeps_wide = library, keeps_wide
        self.add_norm = library.add_norm
        self.gated = library.gated

    def memory(self, config: DecoderConfig, pages: int, page_size: int) -> PagedMemory:
        return PagedMemory(self._library, config, pages, page_size)

    def linear(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
        rounded = weight.to(torch.bfloat16)
        narrow = NarrowLinear(self._library, rounded, bias)
        if not self._keeps_wide:
            return narrow
        wide = WideLinear(rounded.to(torch.float32), bias)

        def by_rows(rows: torch.Tensor) -> torch.Tensor:
            return narrow(rows) if len(rows) <= NARROW_ROWS_MAX else wide(rows)

        return by_rows


class NarrowLinear:
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
