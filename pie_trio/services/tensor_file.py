"""Weights as bf16 in one safetensors file, read and written without a deep-learning library.

Owns the file format and the one rounding that weights ever get: to the nearest bf16, ties to even.
Tensors are read and written one at a time, so that memory stays at the size of the largest.
It must never trust a length or an offset of a file that somebody else wrote.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from pie_trio.errors import BadModel

HEADER_BYTES_MAX = 64 * 1024 * 1024
_ITEM_BYTES: Mapping[str, int] = {"BF16": 2, "F16": 2, "F32": 4}

Bf16 = npt.NDArray[np.uint16]
Wide = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]  # what is being done, bytes done, bytes in all


@attrs.frozen
class TensorSource:
    """One tensor that can be had: its values are computed when they are asked for."""

    name: str
    shape: tuple[int, ...]
    read: Callable[[], Bf16 | Wide]  # as its source has it

    def load(self) -> Bf16:
        """As it is stored."""
        values = self.read()
        return (
            round_to_bf16(values)
            if values.dtype == np.float32
            else values.astype(np.uint16, copy=False)
        )

    def wide(self) -> Wide:
        """Without the rounding."""
        values = self.read()
        if values.dtype == np.float32:
            return values.astype(np.float32, copy=False)
        return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)

    @property
    def byte_count(self) -> int:
        return 2 * math.prod(self.shape)


def round_to_bf16(values: npt.NDArray[Any]) -> Bf16:
    """The upper halves of the nearest values that have no lower half."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = (bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)
    quiet_nan = (bits >> np.uint32(16)) | np.uint32(0x0040)
    return np.where(np.isnan(values), quiet_nan, rounded).astype(np.uint16)


def write_tensors(path: Path, tensors: Sequence[TensorSource], progress: Progress) -> None:
    """Writes the tensors in this order; what is at `path` after a failure is not a model."""
    header = _header(tensors)
    total = sum(tensor.byte_count for tensor in tensors)
    done = 0
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for tensor in tensors:
            data = np.ascontiguousarray(tensor.load(), dtype="<u2")
            if data.shape != tensor.shape:
                raise BadModel(f"tensor {tensor.name} has shape {data.shape}, not {tensor.shape}")
            file.write(data.data)
            done += tensor.byte_count
            progress("converting weights", done, total)


def _header(tensors: Sequence[TensorSource]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        end = offset + tensor.byte_count
        entries[tensor.name] = {
            "dtype": "BF16",
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def read_tensors(path: Path) -> Iterator[TensorSource]:
    """The tensors of a safetensors file of any of the usual types."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(HEADER_BYTES_MAX, size - 8):
                raise BadModel(f"{path} is not a safetensors file")
            entries = json.loads(file.read(length))
        entries.pop("__metadata__", None)
        for name, entry in entries.items():
            yield _source(path, 8 + length, size, name, entry)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadModel(f"{path} is not a safetensors file: {error!r}") from error


def _source(path: Path, base: int, size: int, name: str, entry: Mapping[str, Any]) -> TensorSource:
    dtype, shape = entry["dtype"], tuple(int(length) for length in entry["shape"])
    start, end = (base + int(offset) for offset in entry["data_offsets"])
    if dtype not in _ITEM_BYTES:
        known = ", ".join(_ITEM_BYTES)
        raise BadModel(f"tensor {name} of {path} has type {dtype}; we read {known}")
    if not base <= start <= end <= size or end - start != math.prod(shape) * _ITEM_BYTES[dtype]:
        raise BadModel(f"tensor {name} of {path} does not lie in the file")

    def read() -> Bf16 | Wide:
        return _read(path, start, shape, dtype)

    return TensorSource(name, shape, read)


def _read(path: Path, start: int, shape: tuple[int, ...], dtype: str) -> Bf16 | Wide:
    kind = {"BF16": "<u2", "F16": "<f2", "F32": "<f4"}[dtype]
    count = math.prod(shape)
    values = np.fromfile(path, dtype=kind, count=count, offset=start).reshape(shape)
    return values if dtype == "BF16" else values.astype(np.float32)
