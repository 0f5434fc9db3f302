"""Eight-bit weights and rows in plain torch: the numbers that the kernels in C compute with.

Owns the rounding, which is the same to the last bit: 32 neighbours of a weight share a least value
and a step, 16 neighbours of a row share a step. The products of the rounded numbers are summed in
fp32, where the kernels sum whole numbers, so results agree within fp32 rounding.
It must never let one row of a batch change another.
"""

import torch
import torch.nn.functional as F

from gpu_worker.models.linear import WideLinear

BLOCK = 32
HALF = 16
CODE_MAX = 255.0
ROW_CODE_MAX = 127.0
ROWS_AT_ONCE = 4096  # of a weight, so that what is computed on the way stays small


def rounded_weight(weight: torch.Tensor) -> torch.Tensor:
    """What the codes of a weight [outputs, depth] stand for, in fp32."""
    starts = range(0, len(weight), ROWS_AT_ONCE)
    return torch.cat([_rounded_part(weight[start : start + ROWS_AT_ONCE]) for start in starts])


def _rounded_part(weight: torch.Tensor) -> torch.Tensor:
    blocks = _blocks(weight.to(torch.float32), BLOCK, "replicate")
    least = blocks.amin(-1, keepdim=True).half().float()
    step = ((blocks.amax(-1, keepdim=True) - least) / CODE_MAX).half().float()
    codes = ((blocks - least) / step).round().clamp(0, CODE_MAX)
    codes = torch.where(step > 0, codes, 0.0)
    return (codes * step + least).flatten(1)[:, : weight.shape[1]]


def rounded_rows(rows: torch.Tensor) -> torch.Tensor:
    blocks = _blocks(rows, HALF, "constant")
    most = blocks.abs().amax(-1, keepdim=True)
    # A tensor, because torch divides a number by its reciprocal's product, which rounds twice.
    inverse = torch.where(most > 0, torch.full_like(most, ROW_CODE_MAX) / most, 0.0)
    return ((blocks * inverse).round() * (most / ROW_CODE_MAX)).flatten(1)[:, : rows.shape[1]]


def _blocks(values: torch.Tensor, length: int, mode: str) -> torch.Tensor:
    """[row, block, length]; the last block is filled up with what changes nothing."""
    missing = -values.shape[1] % length
    if missing:
        values = F.pad(values, (0, missing), mode)
    return values.view(values.shape[0], -1, length)


class EightBitLinear:
    """rows @ weight.T + bias, of rounded rows and a rounded weight."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self._linear = WideLinear(rounded_weight(weight), bias)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        return self._linear(rounded_rows(rows))
