"""Compiles C sources with the system's compiler into a shared library, once for each content.

Owns a directory that only this user can write, because what lies in it is executed. A file is named
by a hash of all that it is made of, and appears whole or not at all, so any number of processes may
build at once and one that is killed leaves at most a temporary file.
It must never raise because a machine has no compiler: that is an answer (`NotBuilt`).
"""

import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import attrs

COMPILERS = ("cc", "gcc", "clang")
COMPILE_SECONDS_MAX = 60.0
COMPLAINT_CHARACTERS_MAX = 500


class NotBuilt(Exception):
    """Why there is no such library on this machine."""


@attrs.frozen
class Recipe:
    """All C files and headers of a folder, and how the compiler takes them."""

    name: str  # how the library's file name begins
    source: Path
    flags: tuple[str, ...]
    libraries: tuple[str, ...] = ()


def built(cache: Path, recipe: Recipe) -> Path:
    """The shared library, from the cache or compiled now. Raises `NotBuilt`."""
    if not _is_private(cache):
        raise NotBuilt(f"{cache} cannot be kept from other users")
    compiler = find_compiler()
    target = cache / f"{recipe.name}-{_fingerprint(compiler, recipe)}.so"
    if not target.exists():
        _compile(compiler, recipe, target)
    return target


def find_compiler() -> str:
    for name in (os.environ.get("CC", ""), *COMPILERS):
        found = shutil.which(name) if name else None
        if found is not None:
            return found
    raise NotBuilt("there is no C compiler")


def _is_private(directory: Path) -> bool:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return False
    found = directory.stat()
    others_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return found.st_uid == os.getuid() and not others_write


def _fingerprint(compiler: str, recipe: Recipe) -> str:
    made_by = (compiler, recipe.flags, recipe.libraries, os.uname().machine)
    content = hashlib.sha256(repr(made_by).encode())
    for path in sorted(recipe.source.glob("*.[ch]")):
        content.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return content.hexdigest()[:24]


def _compile(compiler: str, recipe: Recipe, target: Path) -> None:
    sources = [str(path) for path in sorted(recipe.source.glob("*.c"))]
    handle, name = tempfile.mkstemp(dir=target.parent, suffix=".part")
    os.close(handle)
    made = Path(name)
    try:
        ended = subprocess.run(
            [compiler, *recipe.flags, "-o", name, *sources, *recipe.libraries],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMPILE_SECONDS_MAX,
            check=False,
        )
        if ended.returncode != 0:
            complaint = ended.stderr.strip()[-COMPLAINT_CHARACTERS_MAX:]
            raise NotBuilt(f"{compiler} does not compile {recipe.name}: {complaint}")
        made.replace(target)
    except (OSError, subprocess.SubprocessError) as error:
        raise NotBuilt(f"{compiler} cannot be run: {error}") from error
    finally:
        made.unlink(missing_ok=True)
