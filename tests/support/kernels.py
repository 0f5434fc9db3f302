"""Every kind of kernels that this machine can run, for tests that hold them to the same results.

The compiled ones lie where a worker of the default model keeps them. Without a C compiler, or on a
processor that lacks what a variant needs, its tests are skipped, and say so.
"""

from __future__ import annotations

import pytest
import torch

from gpu_worker.kernels import Kernels
from gpu_worker.native.build import PORTABLE, NoKernels, built_library
from gpu_worker.native.kernels import NativeKernels
from gpu_worker.native.library import Library
from gpu_worker.torch_kernels import TorchKernels
from pie_trio.home import Home

VARIANTS = ("avx2", "avx512", PORTABLE)
KINDS = ("torch", *VARIANTS)


def library(variant: str) -> Library:
    """A compiled variant, or the test that asks for it is skipped."""
    capability = torch.backends.cpu.get_cpu_capability()
    if variant != PORTABLE and not capability.startswith(variant.upper().rstrip("2")):
        pytest.skip(f"this processor does not run {variant}")
    try:
        return Library(built_library(Home.default().root / "kernels", variant))
    except NoKernels as error:
        pytest.skip(str(error))


def kernels(kind: str) -> Kernels:
    return TorchKernels() if kind == "torch" else NativeKernels(library(kind), kind)
