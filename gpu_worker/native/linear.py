"""Matrices as the kernels read them, and products with one of them.

Owns the packed memory. Weights lie once, as panels, and are read as such for any number of rows, so
that results depend on the composition of a batch by fp32 rounding alone.
It must never keep a matrix as it was stored beside its panels.
"""

import ctypes
from typing import Any

import numpy as np

from gpu_worker.bf16 import Wide
from gpu_worker.kernels import Parameter
from gpu_worker.native.arrays import aligned_empty
from gpu_worker.native.library import Library
from gpu_worker.native.packed import Packed
from gpu_worker.native.structures import WeightView
from gpu_worker.wire.arrays import Array

KIND_BF16, KIND_INT8 = 0, 1
STORE, GATE = 0, 2  # where products go, as in source/weight.h


class Panels:
    """One packed matrix; `view` is valid as long as this lives."""

    def __init__(
        self,
        library: Library,
        packed: Packed,
        parameter: Parameter,
        is_gate: bool = False,
        numeric: str = "bf16",
    ) -> None:
        outputs, depth = parameter.shape
        shape, kind = _LAYOUT[numeric](library, outputs, depth)

        def pack(panels: Array) -> None:
            dense = parameter.rounded
            given = (dense.ctypes.data, outputs, depth, is_gate, panels.ctypes.data)
            library.call(_PACK[numeric], *given)

        self._panels = packed.take(shape, kind, pack)
        self._bias = parameter.bias
        self.view = WeightView(
            kind=KIND_INT8 if numeric == "int8" else KIND_BF16,
            outputs=outputs,
            depth=depth,
            panels=self._panels.ctypes.data,
            scales=None,
            bias=None if self._bias is None else self._bias.ctypes.data,
        )


def _layout_bf16(library: Library, outputs: int, depth: int) -> tuple[tuple[int, ...], Any]:
    return (-(-outputs // library.panel), depth, library.panel), np.int16


def _layout_int8(library: Library, outputs: int, depth: int) -> tuple[tuple[int, ...], Any]:
    return (library.call("pie_int8_bytes", outputs, depth),), np.uint8


_LAYOUT = {"bf16": _layout_bf16, "int8": _layout_int8}
_PACK = {"bf16": "pie_pack", "int8": "pie_pack_int8"}


class PanelLinear:
    """rows @ weight.T + bias"""

    def __init__(
        self,
        library: Library,
        packed: Packed,
        parameter: Parameter,
        is_gate: bool = False,
        numeric: str = "bf16",
    ) -> None:
        self._library, self._is_gate = library, is_gate
        self._panels = Panels(library, packed, parameter, is_gate, numeric)
        self._view = self._panels.view
        self._at = ctypes.addressof(self._view)

    @property
    def address(self) -> int:
        return self._at

    def __call__(self, rows: Wide) -> Wide:
        """The products; of a gate, silu(gate) * up."""
        width = self._view.outputs // (2 if self._is_gate else 1)
        result = np.empty((len(rows), width), np.float32)
        room = self._room(len(rows))
        self._library.call(
            "pie_product",
            *(self._at, rows.ctypes.data, len(rows), room.ctypes.data),
            *(GATE if self._is_gate else STORE, result.ctypes.data, width),
        )
        return result

    def best(self, rows: Wide) -> tuple[Array, Array]:
        """The first of the outputs with the greatest product, and whether all are finite."""
        count = len(rows)
        best, finite = np.empty(count, np.int64), np.empty(count, np.bool_)
        room = self._room(count)
        self._library.call(
            "pie_best",
            *(self._at, rows.ctypes.data, count, room.ctypes.data),
            *(best.ctypes.data, finite.ctypes.data),
        )
        return best, finite

    def _room(self, rows: int) -> Array:
        return aligned_empty((self._library.call("pie_product_bytes", self._at, rows),), np.uint8)
