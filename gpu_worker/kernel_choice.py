"""Which kernels a worker computes with: the compiled ones where they can be had.

Owns the choice and its one line of explanation. `auto` falls back to torch, with the same results;
`native` insists, and a worker that cannot have them says so and does not start.
It must never fall back silently, nor import torch where the compiled kernels are there.
"""

import os
from collections.abc import Callable
from pathlib import Path

import attrs

from gpu_worker.kernels import Kernels
from gpu_worker.models.config import DecoderConfig
from gpu_worker.native.build import NoKernels, loaded_kernels, processor_flags, variant_for
from gpu_worker.native.kernels import NativeKernels, covers
from gpu_worker.native.library import Library


@attrs.frozen
class KernelChoice:
    """`mode` is auto, native or torch; packed weights are kept in `model`, if there is one."""

    mode: str
    cache: Path
    report: Callable[[str], object]
    numeric: str = "bf16"
    model: Path | None = None
    threads: int = 0  # nought means one for each usable core


def choose_kernels(choice: KernelChoice, config: DecoderConfig, page_size: int) -> Kernels:
    if choice.mode == "torch":
        return torch_kernels(choice)
    try:
        return native_kernels(choice, config, page_size)
    except NoKernels as error:
        if choice.mode == "native":
            raise
        choice.report(f"computing in plain torch, which is slower: {error}")
        return torch_kernels(choice)


def torch_kernels(choice: KernelChoice) -> Kernels:
    import torch  # takes a second, which who does not compute with it need not wait

    from gpu_worker.torch_kernels import TorchKernels

    torch.set_num_threads(_threads(choice))
    return TorchKernels(choice.numeric)


def native_kernels(choice: KernelChoice, config: DecoderConfig, page_size: int) -> NativeKernels:
    """For this processor. Raises `NoKernels`."""
    if not covers(config, page_size):
        raise NoKernels("the kernels do not cover this model's heads or this page size")
    variant = variant_for(processor_flags())
    library = loaded_kernels(choice.cache, variant, Library)
    library.set_threads(_threads(choice))
    return NativeKernels(library, variant, choice.numeric, choice.model)


def _threads(choice: KernelChoice) -> int:
    return choice.threads or len(os.sched_getaffinity(0))
