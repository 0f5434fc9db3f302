"""What every test gets: books that are checked afterwards, and a Trio clock that jumps on request.

Whatever a test starts has ended when it ends: child processes and threads that are left over fail
it. What lives longer than one test is a fixture of wider scope, which starts before the books open.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import psutil
import pytest

# As in a worker: torch's threads do not spin, or tests beside each other starve one another.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

CHILD_GRACE_SECONDS = 5.0
# Threads that a library keeps for reuse; they hold nothing of ours.
IDLE_THREADS = ("Trio thread", "asyncio_", "tqdm", "pytest_timeout", "Thread-tokenizers")


@pytest.fixture(autouse=True)
def _books() -> Iterator[None]:
    """No child process and no thread outlives the test that started it."""
    children = set(psutil.Process().children(recursive=True))
    threads = set(threading.enumerate())
    yield
    _, alive = psutil.wait_procs(
        set(psutil.Process().children(recursive=True)) - children, timeout=CHILD_GRACE_SECONDS
    )
    assert not alive, f"child processes are left: {[_describe(child) for child in alive]}"
    left = [
        thread.name
        for thread in set(threading.enumerate()) - threads
        if thread.is_alive() and not thread.name.startswith(IDLE_THREADS)
    ]
    assert not left, f"threads are left: {left}"


def _describe(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())}"
    except psutil.Error:
        return f"{process.pid} (gone)"
