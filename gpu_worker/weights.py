"""Weights as they lie in the file: mapped, not read, until a layer is packed for computing.

Owns the mapping of one `model.safetensors`. The values are bf16, rounded once when the model was
stored; computing in fp32 widens them, which is exact.
It must never keep a wide copy of a tensor that has been packed.
"""

from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open

FILE = "model.safetensors"


class Weights:
    """The tensors of one model by name."""

    def __init__(self, directory: Path) -> None:
        self._file = cast("Any", safe_open(directory / FILE, framework="pt"))
        self.names = frozenset(self._file.keys())

    def stored(self, name: str) -> torch.Tensor:
        """As it lies in the file."""
        tensor: torch.Tensor = self._file.get_tensor(name)
        return tensor

    def wide(self, name: str) -> torch.Tensor:
        """In fp32."""
        return self.stored(name).to(torch.float32)

    def wide_or_none(self, name: str) -> torch.Tensor | None:
        return self.wide(name) if name in self.names else None
