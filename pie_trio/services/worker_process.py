"""A child process of this machine, seen through its pidfd.

Owns the process until it has been reaped. It is started from this very thread: the kernel sends
the parent-death signal when the thread that started the child ends, so a short-lived helper
thread must not do it. A process that cannot be started leaves nothing behind.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

import trio

from gpu_worker.life import outlive

if TYPE_CHECKING:
    from pie_trio.services.worker_link import WorkerSpec

EPITAPH_BYTES = 4096  # of what it wrote last


class ProcessLike(Protocol):
    """What a link needs of its worker's process."""

    @property
    def pid(self) -> int: ...
    async def wait(self) -> None: ...
    async def wait_dying(self) -> bool:
        """Once it serves: returns when it begins to exit; false if only `wait` can tell."""
        ...

    def kill(self) -> None: ...
    def epitaph(self) -> str: ...
    def close(self) -> None: ...


class WorkerProcess:
    """One task at a time may wait for its end."""

    def __init__(self, command: Sequence[str], life: Path) -> None:
        """`life` is what the process holds as long as it lives. Raises `OSError`."""
        self._life = life
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                start_new_session=True,  # a Ctrl-C in the terminal is the engine's business
            )
            self._pidfd = self._open_view()
        except BaseException:
            self._errors.close()
            raise

    @property
    def pid(self) -> int:
        return self._popen.pid

    async def wait(self) -> None:
        if self._popen.poll() is None:
            await trio.lowlevel.wait_readable(self._pidfd)
            self._popen.wait()

    async def wait_dying(self) -> bool:
        """In a thread that outlasts a cancellation: it ends when the process does."""
        return await trio.to_thread.run_sync(
            outlive, self._life, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1)
        )

    def kill(self) -> None:
        if self._popen.poll() is None:
            self._popen.kill()

    def epitaph(self) -> str:
        """How it ended, with the last line that it wrote."""
        status = self._popen.returncode
        how = f"killed by signal {-status}" if status < 0 else f"gone with status {status}"
        lines = self._last_words().strip().splitlines()
        return f"its process {self.pid} was {how}" + (f": {lines[-1]}" if lines else "")

    def close(self) -> None:
        trio.lowlevel.notify_closing(self._pidfd)
        os.close(self._pidfd)
        self._errors.close()

    def _open_view(self) -> int:
        """Of the very process, whoever gets its number later."""
        try:
            return os.pidfd_open(self._popen.pid)
        except OSError:
            self._popen.kill()
            self._popen.wait()
            raise

    def _last_words(self) -> str:
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - EPITAPH_BYTES))
        return self._errors.read().decode(errors="replace")


def worker_command(spec: WorkerSpec, generation: int, endpoint: str) -> list[str]:
    command = [
        *(sys.executable, "-m", "gpu_worker", "--endpoint", endpoint),
        *("--generation", str(generation), "--model", str(spec.directory)),
        *("--parent", str(os.getpid()), "--numeric", spec.settings.numeric.value),
    ]
    if spec.settings.pretend:
        step, row = spec.settings.pretend_step_seconds, spec.settings.pretend_row_seconds
        command += ["--pretend", "--step-seconds", str(step), "--step-row-seconds", str(row)]
    return command
