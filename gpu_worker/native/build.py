"""The recipes of the kernels: which variant a processor gets, and how it is compiled.

Owns the names of the variants and their compiler flags. An installation compiles all that its kind
of processor may need; what it could not compile, or is no longer what the sources say, is compiled
on a worker's first start (`c_library`). The installation imports this module: it needs nothing but
Python.
It must never raise because a machine has no compiler: that is an answer (`NoKernels`).
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from gpu_worker.c_library import Loaded, NotBuilt, Recipe, loaded

SOURCE = Path(__file__).parent / "source"
FLAGS = ("-O3", "-std=gnu11", "-Wno-psabi", "-fPIC", "-shared", "-fvisibility=hidden", "-fopenmp")
FLAGS_FAST = ("-fno-math-errno",)
# What torch calls the processor -> the name of our variant.
VARIANTS: Mapping[str, str] = {"AVX2": "avx2", "AVX512": "avx512", "AVX512_VNNI": "avx512vnni"}
PORTABLE = "portable"
X86 = ("x86_64", "AMD64")  # what systems call it
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


def recipe_of(variant: str) -> Recipe:
    flags = (*FLAGS, *FLAGS_FAST, *VARIANT_FLAGS[variant])
    return Recipe(f"kernels-{variant}", SOURCE, flags, ("-lm",))


def variants_of(machine: str) -> tuple[str, ...]:
    """All that some processor of this kind runs best with."""
    return tuple(VARIANT_FLAGS) if machine in X86 else (PORTABLE,)


def loaded_kernels(cache: Path, variant: str, load: Callable[[Path], Loaded]) -> Loaded:
    """The library of this variant, as `c_library.loaded` finds it. Raises `NoKernels`."""
    try:
        return loaded(cache, recipe_of(variant), load)
    except NotBuilt as reason:
        raise NoKernels(str(reason)) from reason
