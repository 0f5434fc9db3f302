"""Torch's tensors where the worker has numpy's arrays: references compute with them.

Memory is shared in both directions, so what the kernels change shows in a test's own tensors.
"""

from __future__ import annotations

import attrs
import numpy as np
import torch

from gpu_worker.kernels import Parameter, Step
from gpu_worker.native.decoder import NativeDecoder
from gpu_worker.native.library import Library
from gpu_worker.native.linear import PanelLinear
from gpu_worker.native.packed import Packed
from gpu_worker.wire.arrays import Array


def array_of(tensor: torch.Tensor) -> Array:
    """As weights are stored: bf16 in words of 16 bits."""
    tensor = tensor.contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16)
    array: Array = tensor.numpy()
    return array


def parameter(weight: torch.Tensor, bias: torch.Tensor | None = None) -> Parameter:
    return Parameter(array_of(weight), None if bias is None else array_of(bias))


@attrs.frozen
class Linear:
    """A product with a packed matrix."""

    panels: PanelLinear

    @classmethod
    def pack(
        cls,
        library: Library,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        is_gate: bool = False,
        numeric: str = "bf16",
    ) -> Linear:
        packed = parameter(weight, bias)
        return cls(PanelLinear(library, Packed(None), packed, is_gate, numeric))

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self.panels(array_of(rows)))

    def best(self, rows: torch.Tensor) -> tuple[Array, Array]:
        return self.panels.best(array_of(rows))


def attend(decoder: NativeDecoder, layer: int, joined: torch.Tensor, step: Step) -> torch.Tensor:
    """`joined` is turned where it lies; it has to lie together."""
    return torch.from_numpy(decoder.attend(layer, array_of(joined), step))
