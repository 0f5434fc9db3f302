"""A lock in shared memory that a worker holds as long as it lives.

The kernel passes a robust mutex on the moment that its holder begins to exit, before it tears down
the memory of a large process, which is when a pidfd tells (pthread_mutexattr_setrobust(3),
get_robust_list(2)). Waiting for that costs nothing until then. It is only the sooner of two signs:
where there are no such locks nobody holds one, and the pidfd tells.
It must never be unmapped while a thread waits for it, nor left locked by who found its holder dead.
"""

import contextlib
import ctypes
import errno
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

PAGE_BYTES = 4096  # far more than a mutex, whatever the C library makes of it
ATTRIBUTE_BYTES = 64
_SHARED = _ROBUST = 1  # as Linux's C libraries number them


def life_path(endpoint: str) -> Path:
    """Beside the socket at which the worker is expected."""
    return Path(endpoint.removeprefix("ipc://") + ".life")


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Until the block or this very thread ends. Whoever cannot make such a lock holds none."""
    try:
        lock = _Lock(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    except OSError:
        yield
        return
    if lock.make() or lock.take():
        path.unlink()
        yield
        return
    try:
        yield
    finally:
        lock.leave()


def outlive(path: Path) -> bool:
    """Blocks until whoever holds it dies; false at once if nobody does."""
    try:
        lock = _Lock(path, os.O_RDWR)
    except OSError:
        return False
    taken = lock.take()
    if taken in (0, errno.EOWNERDEAD):
        lock.leave()
    return taken == errno.EOWNERDEAD


class _Lock:
    """The C library's functions answer with an error number, nought for success."""

    def __init__(self, path: Path, flags: int) -> None:
        """Raises `OSError`."""
        file = os.open(path, flags, 0o600)
        try:
            os.ftruncate(file, PAGE_BYTES)
            self._memory = mmap.mmap(file, PAGE_BYTES)
        finally:
            os.close(file)
        self._at = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._threads = ctypes.CDLL(None)

    def make(self) -> int:
        threads, attributes = self._threads, ctypes.create_string_buffer(ATTRIBUTE_BYTES)
        return int(
            threads.pthread_mutexattr_init(attributes)
            or threads.pthread_mutexattr_setpshared(attributes, _SHARED)
            or threads.pthread_mutexattr_setrobust(attributes, _ROBUST)
            or threads.pthread_mutex_init(ctypes.c_void_p(self._at), attributes)
        )

    def take(self) -> int:
        return int(self._threads.pthread_mutex_lock(ctypes.c_void_p(self._at)))

    def leave(self) -> int:
        return int(self._threads.pthread_mutex_unlock(ctypes.c_void_p(self._at)))
