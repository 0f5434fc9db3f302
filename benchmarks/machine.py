"""The machine's own limits, measured: how fast it reads memory, and multiplies with adding.

Owns a library of two loops, compiled into a directory that the caller throws away.
It must never be a figure from a data sheet: what others do on the machine counts too.
"""

from __future__ import annotations

import ctypes
import subprocess
import time
from pathlib import Path

import torch

from gpu_worker.c_library import find_compiler
from gpu_worker.native.build import VARIANT_FLAGS, processor_flags, variant_for

SOURCE = Path(__file__).parent / "machine.c"
READ_FLOATS = 1 << 26  # more than any cache holds
ROUNDS = 2_000_000


class Machine:
    """Each measurement is one sample."""

    def __init__(self, folder: Path) -> None:
        path = folder / "machine.so"
        flags = VARIANT_FLAGS[variant_for(processor_flags())]
        command = [find_compiler(), "-O3", "-fopenmp", "-shared", "-fPIC", "-Wno-psabi", *flags]
        subprocess.run([*command, "-o", str(path), str(SOURCE)], check=True)
        self._library = ctypes.CDLL(str(path))
        self._library.read_all.restype = ctypes.c_float
        self._library.multiply_add.restype = ctypes.c_int64
        self._values = torch.ones(READ_FLOATS)

    def read_bytes_per_second(self) -> float:
        at = ctypes.c_void_p(self._values.data_ptr())
        started = time.perf_counter()
        self._library.read_all(at, ctypes.c_int64(READ_FLOATS))
        return READ_FLOATS * 4 / (time.perf_counter() - started)

    def operations_per_second(self) -> float:
        """A multiplication with an addition counts as two."""
        sink = ctypes.c_float(0)
        started = time.perf_counter()
        count = self._library.multiply_add(
            ctypes.c_int64(ROUNDS), ctypes.c_float(0.5), ctypes.byref(sink)
        )
        return 2 * int(count) / (time.perf_counter() - started)
