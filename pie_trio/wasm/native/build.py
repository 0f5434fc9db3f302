"""Compiles the border with the system's C compiler, once for each content.

Owns a directory that only this user can write, because what lies in it is executed. A file is named
by a hash of all that it is made of, and appears whole or not at all, so any number of engines may
build at once and one that is killed leaves at most a temporary file.
It must never raise because a machine has no compiler: that is an answer (`NoBorder`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).parent
FLAGS: Final = ("-O2", "-std=gnu11", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread")
COMPILERS: Final = ("cc", "gcc", "clang")
COMPILE_SECONDS_MAX: Final = 60.0
COMPLAINT_CHARACTERS_MAX: Final = 500


class NoBorder(Exception):
    """Why there is no compiled border on this machine."""


def built_library(cache: Path) -> Path:
    """The shared library, from the cache or compiled now. Raises `NoBorder`."""
    found = cache.stat()
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise NoBorder(f"{cache} cannot be kept from other users")
    compiler = _find_compiler()
    target = cache / f"border-{_fingerprint(compiler)}.so"
    if not target.exists():
        _compile(compiler, target)
    return target


def _find_compiler() -> str:
    for name in (os.environ.get("CC", ""), *COMPILERS):
        found = shutil.which(name) if name else None
        if found is not None:
            return found
    raise NoBorder("there is no C compiler")


def _fingerprint(compiler: str) -> str:
    content = hashlib.sha256(repr((compiler, FLAGS, os.uname().machine)).encode())
    for path in sorted(SOURCE.glob("*.[ch]")):
        content.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return content.hexdigest()[:24]


def _compile(compiler: str, target: Path) -> None:
    sources = [str(path) for path in sorted(SOURCE.glob("*.c"))]
    handle, name = tempfile.mkstemp(dir=target.parent, suffix=".part")
    os.close(handle)
    made = Path(name)
    try:
        ended = subprocess.run(
            [compiler, *FLAGS, "-o", name, *sources],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMPILE_SECONDS_MAX,
            check=False,
        )
        if ended.returncode != 0:
            complaint = ended.stderr.strip()[-COMPLAINT_CHARACTERS_MAX:]
            raise NoBorder(f"{compiler} does not compile it: {complaint}")
        made.replace(target)
    except (OSError, subprocess.SubprocessError) as error:
        raise NoBorder(f"{compiler} cannot be run: {error}") from error
    finally:
        made.unlink(missing_ok=True)
