"""Compiles the kernels with the system's C compiler, once for each content and kind of processor.

Owns a directory that only this user can write, because what lies in it is executed. A file is named
by a hash of all that it is made of, and appears whole or not at all, so any number of workers may
build at once and one that is killed leaves at most a temporary file.
It must never raise because a machine has no compiler: that is an answer (`NoKernels`).
"""

import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

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
COMPILERS = ("cc", "gcc", "clang")
COMPILE_SECONDS_MAX = 60.0
COMPLAINT_CHARACTERS_MAX = 500


class NoKernels(Exception):
    """Why there are no compiled kernels on this machine."""


def variant_for(capability: str) -> str:
    return VARIANTS.get(capability, PORTABLE)


def built_library(cache: Path, variant: str) -> Path:
    """The shared library of this variant, from the cache or compiled now. Raises `NoKernels`."""
    if not _is_private(cache):
        raise NoKernels(f"{cache} cannot be kept from other users")
    compiler = find_compiler()
    flags = (*FLAGS, *FLAGS_FAST, *VARIANT_FLAGS[variant])
    target = cache / f"kernels-{variant}-{_fingerprint(compiler, flags)}.so"
    if not target.exists():
        _compile(compiler, flags, target)
    return target


def find_compiler() -> str:
    for name in (os.environ.get("CC", ""), *COMPILERS):
        found = shutil.which(name) if name else None
        if found is not None:
            return found
    raise NoKernels("there is no C compiler")


def _is_private(directory: Path) -> bool:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return False
    found = directory.stat()
    others_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return found.st_uid == os.getuid() and not others_write


def _fingerprint(compiler: str, flags: tuple[str, ...]) -> str:
    content = hashlib.sha256(repr((compiler, flags)).encode())
    for path in sorted(SOURCE.iterdir()):
        content.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return content.hexdigest()[:24]


def _compile(compiler: str, flags: tuple[str, ...], target: Path) -> None:
    sources = [str(path) for path in sorted(SOURCE.glob("*.c"))]
    handle, name = tempfile.mkstemp(dir=target.parent, suffix=".part")
    os.close(handle)
    made = Path(name)
    try:
        ended = subprocess.run(
            [compiler, *flags, "-o", name, *sources, "-lm"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMPILE_SECONDS_MAX,
            check=False,
        )
        if ended.returncode != 0:
            complaint = ended.stderr.strip()[-COMPLAINT_CHARACTERS_MAX:]
            raise NoKernels(f"{compiler} does not compile them: {complaint}")
        made.replace(target)
    except (OSError, subprocess.SubprocessError) as error:
        raise NoKernels(f"{compiler} cannot be run: {error}") from error
    finally:
        made.unlink(missing_ok=True)
