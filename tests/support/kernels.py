"""Every kind of kernels that this machine can run, for tests that hold them to the same results.

The compiled ones lie where a worker of the default model keeps them. Without a C compiler, or on a
processor that lacks what a variant needs, its tests are skipped, and say so.
"""

from __future__ import annotations

import pytest

from gpu_worker.kernels import Kernels
from gpu_worker.native.build import NEEDS, PORTABLE, NoKernels, loaded_kernels, processor_flags
from gpu_worker.native.kernels import NativeKernels
from gpu_worker.native.library import Library
from gpu_worker.torch_kernels import TorchKernels
from pie_trio.home import Home

VARIANTS = ("avx2", "avx512", "avx512vnni", PORTABLE)
KINDS = ("torch", *VARIANTS)


def library(variant: str) -> Library:
    """A compiled variant, or the test that asks for it is skipped."""
    if not processor_flags().issuperset(NEEDS[variant]):
        pytest.skip(f"this processor does not run {variant}")
    try:
        return loaded_kernels(Home.default().root / "kernels", variant, Library)
    except NoKernels as error:
        pytest.skip(str(error))


def kernels(kind: str, numeric: str = "bf16") -> Kernels:
    if kind == "torch":
        return TorchKernels(numeric)
    return NativeKernels(library(kind), kind, numeric)
