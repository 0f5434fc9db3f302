"""C sources as shared libraries: compiled when the package is installed, or once for each content.

Owns a directory that only this user can write, because what lies in it is executed; what lies in
the package is trusted as the package is. A file is named by a hash of all that it is made of, and
appears whole or not at all, so any number of processes may build at once and one that is killed
leaves at most a temporary file. The installation imports this module before there is any package:
it needs nothing but Python.
It must never raise because a machine has no compiler: that is an answer (`NotBuilt`).
"""

import contextlib
import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

COMPILERS = ("cc", "gcc", "clang")
COMPILE_SECONDS_MAX = 60.0
COMPLAINT_CHARACTERS_MAX = 500
INSTALLED = "compiled"  # the folder in a recipe's sources where an installation puts its library

Loaded = TypeVar("Loaded")


class NotBuilt(Exception):
    """Why there is no such library on this machine."""


class Recipe(NamedTuple):
    """All C files and headers of a folder, and how the compiler takes them."""

    name: str  # how the library's file name begins
    source: Path
    flags: tuple[str, ...]
    libraries: tuple[str, ...] = ()


def loaded(cache: Path, recipe: Recipe, load: Callable[[Path], Loaded]) -> Loaded:
    """The library that was installed, else that of the cache, else one that is compiled now.

    One that this machine's loader refuses (`OSError`) counts as absent. Raises `NotBuilt`.
    """
    installed = recipe.source / INSTALLED / file_name(recipe)
    if installed.exists():
        with contextlib.suppress(OSError):
            return load(installed)
    _keep_private(cache)
    kept = cache / installed.name
    if kept.exists():
        with contextlib.suppress(OSError):
            return load(kept)
    try:
        return load(compiled(cache, recipe))
    except OSError as error:
        raise NotBuilt(f"{recipe.name} is compiled, but cannot be loaded: {error}") from error


def compiled(folder: Path, recipe: Recipe) -> Path:
    """The library in this folder, compiled now. Raises `NotBuilt`."""
    target = folder / file_name(recipe)
    _compile(find_compiler(), recipe, target)
    return target


def file_name(recipe: Recipe) -> str:
    """Another one whenever the library would be another one, but for the compiler's own mind."""
    content = hashlib.sha256(repr((recipe.flags, recipe.libraries, os.uname().machine)).encode())
    for path in sorted(recipe.source.glob("*.[ch]")):
        content.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{recipe.name}-{content.hexdigest()[:24]}.so"


def find_compiler() -> str:
    for name in (os.environ.get("CC", ""), *COMPILERS):
        found = shutil.which(name) if name else None
        if found is not None:
            return found
    raise NotBuilt("there is no C compiler")


def _keep_private(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.stat()
    except OSError as error:
        raise NotBuilt(f"{directory} cannot be made: {error}") from error
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise NotBuilt(f"{directory} cannot be kept from other users")


def _compile(compiler: str, recipe: Recipe, target: Path) -> None:
    sources = [str(path) for path in sorted(recipe.source.glob("*.c"))]
    made = _empty_file(target.parent)
    try:
        ended = subprocess.run(
            [compiler, *recipe.flags, "-o", str(made), *sources, *recipe.libraries],
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


def _empty_file(folder: Path) -> Path:
    try:
        handle, name = tempfile.mkstemp(dir=folder, suffix=".part")
    except OSError as error:
        raise NotBuilt(f"{folder} cannot be written to: {error}") from error
    os.close(handle)
    return Path(name)
