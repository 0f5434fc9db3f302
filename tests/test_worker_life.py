"""The lock that a worker holds as long as it lives: its death is told, and nothing else is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpu_worker.life import life_path, outlive

HOLDER = (
    "import sys\n"
    "from pathlib import Path\n"
    "from gpu_worker.life import held\n"
    "with held(Path(sys.argv[1])):\n"
    "    print('held', flush=True)\n"
    "    sys.stdin.readline()\n"
    "print('left', flush=True)\n"
    "sys.stdin.readline()\n"
)


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock until it reads a line."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def waiting(path: Path) -> Iterator[list[bool]]:
    """What `outlive` has answered when the block is over."""
    told: list[bool] = []
    thread = threading.Thread(target=lambda: told.append(outlive(path)))
    thread.start()
    yield told
    thread.join(timeout=10)
    assert not thread.is_alive()


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_death_is_told_before_the_process_is_reaped(tmp_path: Path, sign: int) -> None:
    with holder(tmp_path / "life") as process:
        with waiting(tmp_path / "life") as told:
            assert told == []
            os.kill(process.pid, sign)
        assert told == [True]
        assert process.returncode is None


def test_who_lets_go_before_it_ends_is_not_called_dead(tmp_path: Path) -> None:
    with holder(tmp_path / "life") as process:
        assert process.stdin is not None
        with waiting(tmp_path / "life") as told:
            process.stdin.write("\n")
            process.stdin.flush()
        assert told == [False]
        assert process.poll() is None


def test_a_lock_that_nobody_made_tells_nothing(tmp_path: Path) -> None:
    assert outlive(tmp_path / "life") is False


def test_who_cannot_make_one_works_without(tmp_path: Path) -> None:
    path = tmp_path / "there is no such folder" / "life"
    with holder(path):
        assert outlive(path) is False


def test_it_lies_beside_the_socket() -> None:
    assert life_path("ipc:///tmp/pie/worker") == Path("/tmp/pie/worker.life")
