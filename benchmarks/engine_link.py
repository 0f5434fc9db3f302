"""A peer's process, seen from the bench: one line to it, one line back, within a bounded time.

Owns the process group from its start to its death. While another engine is measured the process
and all that it started are stopped, so that nothing of it spins. A peer that says nonsense, falls
silent or dies is lost with its reason, and the bench goes on without it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

START_SECONDS = 180.0
ANSWER_SECONDS = 120.0
END_SECONDS = 5.0
LAST_WORDS_BYTES = 4000


class PeerLost(Exception):
    """It cannot be measured any more, and why."""


class PeerRefusal(Exception):
    """It lives, but cannot do what was asked."""


class PeerLink:
    """One peer, stopped unless it is working. `facts` is the first line that it said."""

    def __init__(self, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._rest = b""
        started = time.perf_counter()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            start_new_session=True,
        )
        self._pidfd = os.pidfd_open(self._process.pid)
        try:
            self.facts = self._read_line(START_SECONDS)
        except BaseException:
            self.close()
            raise
        self.start_seconds = time.perf_counter() - started
        self._signal(signal.SIGSTOP)

    def ask(self, op: str, **order: Any) -> dict[str, Any]:
        """Raises `PeerRefusal`, or `PeerLost` and the process is gone."""
        self._signal(signal.SIGCONT)
        try:
            assert self._process.stdin is not None, "it was opened with a pipe"
            self._process.stdin.write(json.dumps({"op": op, **order}).encode() + b"\n")
            self._process.stdin.flush()
            answer = self._read_line(ANSWER_SECONDS)
        except OSError as error:
            raise self._lost(f"cannot be asked ({error})") from error
        self._signal(signal.SIGSTOP)
        if "error" in answer:
            raise PeerRefusal(answer["error"])
        return answer

    def let_go(self) -> None:
        """It may end, in its own time."""
        self._signal(signal.SIGCONT)
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(OSError):  # it may be dead already
                self._process.stdin.close()

    def close(self) -> None:
        """Nothing of it is left."""
        self.let_go()
        family = list(descendants(self._process.pid))
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pid in (*family, -self._process.pid):  # also what was orphaned in its group
            _kill(pid, signal.SIGKILL)
        os.close(self._pidfd)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()

    def _read_line(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None, "it was opened with a pipe"
        out = self._process.stdout.fileno()
        deadline = time.monotonic() + seconds
        while b"\n" not in self._rest:
            rest = max(deadline - time.monotonic(), 0)
            ready, _, _ = select.select([out, self._pidfd], [], [], rest)
            if not ready:
                raise self._lost(f"no answer within {seconds:g} s")
            if out not in ready:  # its children may hold the pipe open for ever
                raise self._lost("its process has ended")
            piece = os.read(out, 1 << 16)
            if not piece:
                raise self._lost("its process has ended")
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            answer = json.loads(line)
        except ValueError:
            raise self._lost(f"it said {line[:80]!r}") from None
        if not isinstance(answer, dict):
            raise self._lost(f"it said {line[:80]!r}")
        return answer

    def _lost(self, reason: str) -> PeerLost:
        words = self._last_words()
        return PeerLost(f"{reason}: {words}" if words else reason)

    def _last_words(self) -> str:
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - LAST_WORDS_BYTES))
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else ""

    def _signal(self, number: signal.Signals) -> None:
        signal_family(self._process.pid, number)


def signal_family(pid: int, number: signal.Signals) -> None:
    for each in (pid, *descendants(pid)):
        _kill(each, number)


def descendants(pid: int) -> Iterator[int]:
    """Its children and theirs, whatever session they are in."""
    try:
        threads = list(Path(f"/proc/{pid}/task").glob("*/children"))
    except OSError:  # it has ended meanwhile
        return
    for path in threads:
        try:
            children = path.read_text("ascii").split()
        except OSError:
            continue
        for child in children:
            yield int(child)
            yield from descendants(int(child))


def _kill(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
