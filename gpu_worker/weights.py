"""Weights as they lie in the file: mapped, not read, until a layer is packed for computing.

Owns the mapping of one `model.safetensors`, and how such a file is laid out. The values are bf16,
rounded once when the model was stored; computing in fp32 widens them, which is exact.
It must never trust a length or an offset of a file, nor keep a wide copy of what has been packed.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
import numpy as np

from gpu_worker.bf16 import Wide, in_fp32
from gpu_worker.wire.arrays import Array

FILE = "model.safetensors"
HEADER_BYTES_MAX = 64 * 1024 * 1024
# As safetensors calls them -> as numpy does, which has no bf16: those are words of 16 bits.
KINDS: Mapping[str, str] = MappingProxyType({"BF16": "<u2", "F16": "<f2", "F32": "<f4"})


@attrs.frozen
class Stored:
    """Where one tensor lies in its file."""

    kind: str  # one of `KINDS`
    shape: tuple[int, ...]
    start: int  # a byte of the file

    @property
    def byte_count(self) -> int:
        return math.prod(self.shape) * np.dtype(KINDS[self.kind]).itemsize


def tensors_in(path: Path) -> dict[str, Stored]:
    """What a safetensors file says it has. Raises `ValueError` and `OSError`."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(HEADER_BYTES_MAX, size - 8):
            raise ValueError(f"{path} is not a safetensors file")
        header = file.read(length)
    try:
        entries = json.loads(header)
        entries.pop("__metadata__", None)
        return {name: _stored(path, size, 8 + length, name, entries[name]) for name in entries}
    except (TypeError, KeyError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a safetensors file: {error!r}") from error


def _stored(path: Path, size: int, base: int, name: str, entry: Mapping[str, Any]) -> Stored:
    kind, shape = entry["dtype"], tuple(int(length) for length in entry["shape"])
    start, end = (base + int(offset) for offset in entry["data_offsets"])
    if kind not in KINDS:
        raise ValueError(f"tensor {name} of {path} has type {kind}; we read {', '.join(KINDS)}")
    stored = Stored(kind, shape, start)
    if not base <= start <= end <= size or end - start != stored.byte_count:
        raise ValueError(f"tensor {name} of {path} does not lie in the file")
    return stored


class Weights:
    """The tensors of one model by name."""

    def __init__(self, directory: Path) -> None:
        path = directory / FILE
        self._tensors = tensors_in(path)
        self.names = frozenset(self._tensors)
        self._bytes = np.memmap(path, np.uint8, "r")

    def stored(self, name: str) -> Array:
        """As it lies in the file; bf16 as words of 16 bits."""
        tensor = self._tensors[name]
        part = self._bytes[tensor.start : tensor.start + tensor.byte_count]
        found: Array = part.view(KINDS[tensor.kind]).reshape(tensor.shape)
        return found

    def wide(self, name: str) -> Wide:
        """In fp32."""
        return in_fp32(self.stored(name))

    def wide_or_none(self, name: str) -> Wide | None:
        return self.wide(name) if name in self.names else None
