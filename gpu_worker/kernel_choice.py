"""Which kernels a worker computes with: the compiled ones where they can be had.

Owns the choice and its one line of explanation. `auto` falls back to torch, with the same results;
`native` insists, and a worker that cannot have them says so and does not start.
It must never fall back silently.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch

from gpu_worker.kernels import Kernels
from gpu_worker.models.config import DecoderConfig
from gpu_worker.native.build import NoKernels, loaded_kernels, variant_for
from gpu_worker.native.kernels import NativeKernels, covers
from gpu_worker.native.library import Library
from gpu_worker.torch_kernels import TorchKernels


@attrs.frozen
class KernelChoice:
    """`mode` is auto, native or torch; packed weights are kept in `model`, if there is one."""

    mode: str
    cache: Path
    report: Callable[[str], object]
    numeric: str = "bf16"
    model: Path | None = None


def choose_kernels(choice: KernelChoice, config: DecoderConfig, page_size: int) -> Kernels:
    if choice.mode == "torch":
        return TorchKernels(choice.numeric)
    try:
        return native_kernels(choice, config, page_size)
    except NoKernels as error:
        if choice.mode == "native":
            raise
        choice.report(f"computing in plain torch, which is slower: {error}")
        return TorchKernels(choice.numeric)


def native_kernels(choice: KernelChoice, config: DecoderConfig, page_size: int) -> NativeKernels:
    """For this processor. Raises `NoKernels`."""
    if not covers(config, page_size):
        raise NoKernels("the kernels do not cover this model's heads or this page size")
    variant = variant_for(capability())
    library = loaded_kernels(choice.cache, variant, Library)
    return NativeKernels(library, variant, choice.numeric, choice.model)


def capability() -> str:
    """What torch says of the processor, and whether it multiplies bytes."""
    found = torch.backends.cpu.get_cpu_capability()
    is_byte: Any = torch.cpu
    return f"{found}_VNNI" if found == "AVX512" and is_byte._is_vnni_supported() else found
