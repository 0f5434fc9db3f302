"""The compiled kernels as Python calls.

Owns the C signatures, and which OpenMP they find: that of torch where it is installed, so that both
share one pool of threads should torch be imported, too. Calls take addresses; what they point to
must live until the call returns, which it does because the caller holds it.
It must never keep an array, nor check what a plan has already established.
"""

import contextlib
import ctypes
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

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
        _load_openmp()
        self._loaded = ctypes.CDLL(str(path))
        for name, (arguments, result) in _SIGNATURES.items():
            call = getattr(self._loaded, name)
            call.argtypes, call.restype = arguments, result
        sizes = np.zeros(len(VIEWS) + 1, dtype=np.int64)
        self.call("pie_sizes", sizes.ctypes.data)
        expected = [ctypes.sizeof(view) for view in VIEWS]
        assert sizes[:-1].tolist() == expected, "the structures are those of the C sources"
        self.panel = int(sizes[-1])  # outputs that lie together in a packed weight

    def set_threads(self, threads: int) -> None:
        """How many work at calls of this thread from now on, and at torch's."""
        self._loaded.omp_set_num_threads(threads)

    def call(self, name: str, *arguments: object) -> Any:
        return getattr(self._loaded, name)(*arguments)


def _load_openmp() -> None:
    """Without importing torch, which takes a second; elsewhere the system's serves as well."""
    torch = find_spec("torch")
    for folder in (torch and torch.submodule_search_locations) or ():
        with contextlib.suppress(OSError):
            ctypes.CDLL(str(Path(folder) / "lib" / "libgomp.so.1"), ctypes.RTLD_GLOBAL)
