"""Memory that begins where a cache line does, so that no vector lies across two of them.

Owns nothing: numpy's memory, which asks the system for huge pages where torch's does not, but only
if it is large. So what lives equally long is cut out of one `Store`. Memory that is asked for as
noughts is taken from the system when it is first written.
It must never be resized: the alignment would be lost.
"""

import math
from typing import Any

import numpy as np

from gpu_worker.wire.arrays import Array

LINE_BYTES = 64
STORE_BYTES = 32 << 20  # what a store takes from the system at a time


def aligned_empty(shape: tuple[int, ...], kind: Any) -> Array:
    return _cut(np.empty(bytes_of(shape, kind) + LINE_BYTES, np.uint8), shape, kind)


def aligned_zeros(shape: tuple[int, ...], kind: Any) -> Array:
    return _cut(np.zeros(bytes_of(shape, kind) + LINE_BYTES, np.uint8), shape, kind)


class Store:
    """Room for many arrays, in noughts; it lives as long as the last of them."""

    def __init__(self) -> None:
        self._left = aligned_zeros((0,), np.uint8)

    def zeros(self, shape: tuple[int, ...], kind: Any) -> Array:
        size = bytes_of(shape, kind)
        lines = lines_of(size)
        if lines > len(self._left):
            self._left = aligned_zeros((max(lines, STORE_BYTES),), np.uint8)
        cut: Array = self._left[:size].view(kind).reshape(shape)
        self._left = self._left[lines:]
        return cut


def bytes_of(shape: tuple[int, ...], kind: Any) -> int:
    return math.prod(shape) * int(np.dtype(kind).itemsize)


def lines_of(size: int) -> int:
    """Bytes of the whole lines that so many need."""
    return -(-size // LINE_BYTES) * LINE_BYTES


def _cut(memory: Array, shape: tuple[int, ...], kind: Any) -> Array:
    start = -memory.ctypes.data % LINE_BYTES
    cut: Array = memory[start : start + len(memory) - LINE_BYTES].view(kind).reshape(shape)
    return cut
