"""The recipes of the kernels: which variant a processor gets, and how it is compiled.

Owns the names of the variants and their compiler flags. An installation compiles all that its kind
of processor may need; what it could not compile, or is no longer what the sources say, is compiled
on a worker's first start (`c_library`). The installation imports this module: it needs nothing but
Python.
It must never raise because a machine has no compiler: that is an answer (`NoKernels`).
"""

import contextlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from gpu_worker.c_library import Loaded, NotBuilt, Recipe, loaded

SOURCE = Path(__file__).parent / "source"
FLAGS = ("-O3", "-std=gnu11", "-Wno-psabi", "-fPIC", "-shared", "-fvisibility=hidden", "-fopenmp")
# A loop of a few dozen instructions is not cut by a line of the instruction cache.
FLAGS_FAST = ("-fno-math-errno", "-falign-loops=64")
PORTABLE = "portable"
X86 = ("x86_64", "AMD64")  # what systems call it
PROCESSOR = Path("/proc/cpuinfo")
_AVX2 = ("avx2", "fma")
_AVX512 = (*_AVX2, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
# What a processor must have for a variant, as compilers call it; the best variant comes first.
NEEDS: Mapping[str, tuple[str, ...]] = {
    "avx512vnni": (*_AVX512, "avx512vnni"),
    "avx512": _AVX512,
    "avx2": _AVX2,
    PORTABLE: (),
}
VARIANT_FLAGS: Mapping[str, tuple[str, ...]] = {
    variant: tuple(f"-m{need}" for need in needs) for variant, needs in NEEDS.items()
}


class NoKernels(Exception):
    """Why there are no compiled kernels on this machine."""


def processor_flags() -> frozenset[str]:
    """What the processor has and the system lets us use; nothing where it does not tell."""
    with contextlib.suppress(OSError):
        for line in PROCESSOR.read_text("ascii", "replace").splitlines():
            if line.startswith("flags"):
                return frozenset(line.replace("avx512_", "avx512").split())
    return frozenset()


def variant_for(flags: Collection[str]) -> str:
    """The best that a processor with these flags runs."""
    return next(variant for variant, needs in NEEDS.items() if set(needs) <= set(flags))


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
