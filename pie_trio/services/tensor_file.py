"""Weights as bf16 in one safetensors file, read and written without a deep-learning library.

Owns what is written, and the conversion of what others wrote. Tensors are read and written one at a
time, so that memory stays at the size of the largest.
It must never leave a wide copy of more than one tensor in memory.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from gpu_worker.bf16 import Bf16, Wide, in_bf16, in_fp32
from gpu_worker.weights import KINDS, Stored, tensors_in
from pie_trio.errors import BadModel

Progress = Callable[[str, int, int], None]  # what is being done, bytes done, bytes in all


@attrs.frozen
class TensorSource:
    """One tensor that can be had: its values are computed when they are asked for."""

    name: str
    shape: tuple[int, ...]
    read: Callable[[], Bf16 | Wide]  # as its source has it

    def load(self) -> Bf16:
        """As it is stored."""
        return in_bf16(self.read())

    def wide(self) -> Wide:
        """Without the rounding."""
        return in_fp32(self.read())

    @property
    def byte_count(self) -> int:
        return 2 * math.prod(self.shape)


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
        found = tensors_in(path)
    except ValueError as error:
        raise BadModel(str(error)) from error
    except OSError as error:
        raise BadModel(f"{path} is not a safetensors file: {error!r}") from error
    for name, stored in found.items():
        yield TensorSource(name, stored.shape, partial(_read, path, stored))


def _read(path: Path, stored: Stored) -> Bf16 | Wide:
    kind, count = KINDS[stored.kind], math.prod(stored.shape)
    values = np.fromfile(path, dtype=kind, count=count, offset=stored.start).reshape(stored.shape)
    return values if stored.kind == "BF16" else values.astype(np.float32)
