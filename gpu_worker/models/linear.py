"""A linear layer in fp32, its weights packed once for the processor.

Owns the packed copy. oneDNN's own layout makes small batches about twice as fast as a plain
matrix product, which packs anew at each call; without oneDNN the plain product is used.
It must never keep the unpacked weights beside the packed ones.
"""

from typing import Any

import torch
import torch.nn.functional as F

PACKED_FOR_ROWS = 16


class WideLinear:
    """rows @ weight.T + bias"""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self._bias = bias
        backends: Any = torch.backends
        operators: Any = torch.ops.mkldnn
        self._is_packed = bool(backends.mkldnn.is_available())
        self._weight: torch.Tensor = (
            operators._reorder_linear_weight(weight.contiguous(), PACKED_FOR_ROWS)
            if self._is_packed
            else weight.contiguous()
        )
        self._product: Any = operators._linear_pointwise

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        if not self._is_packed:
            return F.linear(rows, self._weight, self._bias)
        result: torch.Tensor = self._product(rows, self._weight, self._bias, "none", [], "")
        return result
