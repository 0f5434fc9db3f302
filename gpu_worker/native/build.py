"""The recipes of the kernels: which variant a processor gets, and how it is compiled.

Owns the names of the variants and their compiler flags. They are compiled on the machine that runs
them, once for each content (`c_library`).
It must never raise because a machine has no compiler: that is an answer (`NoKernels`).
"""

from collections.abc import Mapping
from pathlib import Path

from gpu_worker.c_library import NotBuilt, Recipe, built

SOURCE = Path(__file__).parent / "source"
FLAGS = ("-O3", "-std=gnu11", "-Wno-psabi", "-fPIC", "-shared", "-fvisibility=hidden", "-fopenmp")
FLAGS_FAST = ("-fno-math-errno",)
# What torch calls the processor -> the name of our variant.
VARIANTS: Mapping[str, str] = {"AVX2": "avx2", "AVX512": "avx512", "AVX512_VNNI": "avx512vnni"}
PORTABLE = "portable"
_AVX2 = ("-mavx2", "-mfma")
_AVX512 = (*_AVX2, *(f"-mavx512{part}" for part in ("f", "bw", "cd", "dq", "vl")))
VARIANT_FLAGS: Mapping[str, tuple[str, ...]] = {
    "avx2": _AVX2,
    "avx512": _AVX512,
    "avx512vnni": (*_AVX512, "-mavx512vnni"),
    PORTABLE: (),
}


class NoKernels(Exception):
    """Why there are no compiled kernels on this machine."""


def variant_for(capability: str) -> str:
    return VARIANTS.get(capability, PORTABLE)


def built_library(cache: Path, variant: str) -> Path:
    """The shared library of this variant, from the cache or compiled now. Raises `NoKernels`."""
    flags = (*FLAGS, *FLAGS_FAST, *VARIANT_FLAGS[variant])
    try:
        return built(cache, Recipe(f"kernels-{variant}", SOURCE, flags, ("-lm",)))
    except NotBuilt as reason:
        raise NoKernels(str(reason)) from reason
