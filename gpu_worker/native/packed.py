"""Packed weights: mapped from what an earlier start has kept, or packed into memory of our own.

Owns one file beside the weights for each numeric mode. It appears whole, on the disk, or not at
all, and nobody writes to one that is there; it counts only for the very weights, kernels and mode
that it was made from, and whoever cannot read or write it packs, and is only slower.
It must never make a worker wait for a disk: what was packed is kept by a thread of its own.
"""

import contextlib
import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gpu_worker.native.arrays import Store, bytes_of, lines_of
from gpu_worker.wire.arrays import Array

HEAD_BYTES = 128
PART = ".part"


def key_of(weights: Path, kernels: str, numeric: str) -> str:
    """Changes with whatever would change a packed byte."""
    facts = weights.stat()
    made_of = (facts.st_size, facts.st_mtime_ns, facts.st_ino, kernels, numeric)
    return hashlib.sha256(repr(made_of).encode()).hexdigest()


class Packed:
    """Arrays that are taken in the same order at each start; `kept` is what an earlier one left."""

    def __init__(self, kept: Array | None) -> None:
        self._store = Store()
        self._left = kept
        self.arrays: list[Array] = []
        self.keeping: threading.Thread | None = None

    @property
    def is_mapped(self) -> bool:
        return self._left is not None

    def take(self, shape: tuple[int, ...], kind: Any, pack: Callable[[Array], None]) -> Array:
        array = self._mapped(shape, kind)
        if array is None:
            array = self._store.zeros(shape, kind)
            pack(array)
        self.arrays.append(array)
        return array

    def _mapped(self, shape: tuple[int, ...], kind: Any) -> Array | None:
        if self._left is None:
            return None
        size = bytes_of(shape, kind)
        array: Array = self._left[:size].view(kind).reshape(shape)
        self._left = self._left[lines_of(size) :]
        return array


@contextlib.contextmanager
def packed_at(path: Path | None, key: str) -> Iterator[Packed]:
    """What lies in this file, or will be kept there; none: nowhere."""
    packed = Packed(None if path is None else _mapped(path, key))
    yield packed
    if path is not None and not packed.is_mapped:
        given = (path, key, packed.arrays)
        packed.keeping = threading.Thread(target=keep, args=given, daemon=True)
        packed.keeping.start()


def _mapped(path: Path, key: str) -> Array | None:
    """All that is behind its head; none if it is not there or not made of the same."""
    with contextlib.suppress(OSError, ValueError), path.open("rb") as file:
        found, size = file.read(HEAD_BYTES).split()
        if found == key.encode() and int(size) == os.fstat(file.fileno()).st_size:
            return np.memmap(file, np.uint8, "r", HEAD_BYTES)
    return None


def keep(path: Path, key: str, arrays: list[Array]) -> None:
    """Only one process at a time does; one that is killed leaves a part, which the next begins
    anew.
    """
    part = path.with_name(path.name + PART)
    with contextlib.suppress(OSError), part.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(file.fileno()), part.stat()):
            return  # somebody has just finished it: it is the file now
        file.truncate(0)
        size = HEAD_BYTES + sum(lines_of(array.nbytes) for array in arrays)
        file.write(f"{key} {size}".encode().ljust(HEAD_BYTES))
        for array in arrays:
            file.write(array.data.cast("B"))
            file.write(bytes(lines_of(array.nbytes) - array.nbytes))
        file.flush()
        os.fsync(file.fileno())
        part.replace(path)
