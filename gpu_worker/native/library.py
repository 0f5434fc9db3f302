"""The compiled kernels as Python calls.

Owns the C signatures. torch is imported first, so that the library finds torch's OpenMP already
loaded and both share one pool of threads. Calls take addresses; what they point to must live until
the call returns, which it does because the caller holds it.
It must never keep a tensor, nor check what a plan has already established.
"""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import torch  # noqa: F401  before the library, see above

from gpu_worker.native.structures import VIEWS

_P, _N = ctypes.c_void_p, ctypes.c_int64
_SIGNATURES: dict[str, tuple[tuple[Any, ...], Any]] = {
    "pie_sizes": ((_P,), None),
    "pie_pack": ((_P, _N, _N, _N, _P), None),
    "pie_int8_bytes": ((_N, _N), _N),
    "pie_pack_int8": ((_P, _N, _N, _N, _P), None),
    "pie_product": ((_P, _P, _N, _P, _N, _P, _N), None),
    "pie_product_bytes": ((_P, _N), _N),
    "pie_best": ((_P, _P, _N, _P, _P, _P), None),
    "pie_forward": ((_P, _P, _P), _N),
    "pie_attend": ((_P, _P, _P, _N, _P, _P), _N),
}


class Library:
    """One loaded variant."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._loaded = ctypes.CDLL(str(path))
        for name, (arguments, result) in _SIGNATURES.items():
            call = getattr(self._loaded, name)
            call.argtypes, call.restype = arguments, result
        sizes = np.zeros(len(VIEWS) + 1, dtype=np.int64)
        self.call("pie_sizes", sizes.ctypes.data)
        expected = [ctypes.sizeof(view) for view in VIEWS]
        assert sizes[:-1].tolist() == expected, "the structures are those of the C sources"
        self.panel = int(sizes[-1])  # outputs that lie together in a packed weight

    def call(self, name: str, *arguments: object) -> Any:
        return getattr(self._loaded, name)(*arguments)
