"""Memory that begins where a cache line does, so that no vector lies across two of them.

Owns nothing: numpy's memory, which asks the system for huge pages where torch's does not. Memory
that is asked for as noughts is taken from the system when it is first written.
It must never be resized: the alignment would be lost.
"""

import math
from typing import Any

import numpy as np

from gpu_worker.wire.arrays import Array

LINE_BYTES = 64


def aligned_empty(shape: tuple[int, ...], kind: Any) -> Array:
    return _cut(np.empty(_bytes(shape, kind), np.uint8), shape, kind)


def aligned_zeros(shape: tuple[int, ...], kind: Any) -> Array:
    return _cut(np.zeros(_bytes(shape, kind), np.uint8), shape, kind)


def _bytes(shape: tuple[int, ...], kind: Any) -> int:
    size: int = np.dtype(kind).itemsize
    return math.prod(shape) * size + LINE_BYTES


def _cut(memory: Array, shape: tuple[int, ...], kind: Any) -> Array:
    start = -memory.ctypes.data % LINE_BYTES
    cut: Array = memory[start : start + len(memory) - LINE_BYTES].view(kind).reshape(shape)
    return cut
