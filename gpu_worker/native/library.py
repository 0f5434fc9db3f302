"""The compiled kernels as Python calls over tensors.

Owns the C signatures. torch is imported first, so that the library finds torch's OpenMP already
loaded and both share one pool of threads. Calls take dense fp32 tensors; what they point to must
live until the call returns, which it does because the caller holds them.
It must never keep a tensor, nor check what a plan has already established.
"""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import torch

_P, _N, _F = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_SIGNATURES = {
    "pie_linear": (_P, _N, _N, _P, _P, _P, _N),
    "pie_pack": (_P, _N, _N, _P),
    "pie_add_norm": (_P, _P, _P, _P, _N, _N, _F),
    "pie_gated": (_P, _P, _N, _N),
    "pie_rotate_append": (_P, _N, _N, _N, _N, _P, _P, _P, _P, _P, _N),
    "pie_attend": (_P, _N, _P, _P, _P, _N, _N, _N, _F, _P, _N, _P, _P, _P),
}
PANEL = 16  # outputs that lie together in a packed weight


class Library:
    """One loaded variant."""

    def __init__(self, path: Path) -> None:
        loaded = ctypes.CDLL(str(path))
        self._calls: dict[str, Any] = {}
        for name, arguments in _SIGNATURES.items():
            call = getattr(loaded, name)
            call.argtypes = arguments
            call.restype = None
            self._calls[name] = call
        self.linear_call = self._calls["pie_linear"]
        self.attend_call = self._calls["pie_attend"]
        self.append_call = self._calls["pie_rotate_append"]

    def pack(self, weight: torch.Tensor) -> torch.Tensor:
        """A weight [outputs, depth] in bf16, as `linear_call` reads it."""
        outputs, depth = weight.shape
        dense = weight.contiguous()
        # numpy asks for huge pages, torch does not: fewer address translations at each step.
        panels = torch.from_numpy(np.empty((-(-outputs // PANEL), depth, PANEL), dtype=np.int16))
        self._calls["pie_pack"](dense.data_ptr(), outputs, depth, panels.data_ptr())
        return panels

    def add_norm(
        self,
        hidden: torch.Tensor,
        change: torch.Tensor | None,
        weight: torch.Tensor,
        epsilon: float,
    ) -> torch.Tensor:
        """Adds the change to `hidden` where it lies; the result is its norm."""
        result = torch.empty_like(hidden)
        added = None if change is None else change.data_ptr()
        self._calls["pie_add_norm"](
            *(hidden.data_ptr(), added, weight.data_ptr(), result.data_ptr()),
            *(*hidden.shape, epsilon),
        )
        return result

    def gated(self, joined: torch.Tensor) -> torch.Tensor:
        rows, width = joined.shape[0], joined.shape[1] // 2
        result = torch.empty(rows, width)
        self._calls["pie_gated"](joined.data_ptr(), result.data_ptr(), rows, width)
        return result
