"""The interpreter component that all Python programs share: built once, on first use.

The build takes half a minute in a process of its own and appears in the cache by one rename, under
a hash of everything that goes into it. Cancelled: the process is dead and nothing is left.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import trio

from pie_trio.die_with_parent import die_with
from pie_trio.errors import BadProgram
from pie_trio.services.guest_build.python_component import (
    build_python_component,
    interpreter_identity,
)


async def ensure_interpreter(cache: Path, say: Callable[[str], None]) -> Path:
    """The component's file. Raises `BadProgram` when it cannot be built."""
    component = cache / f"{interpreter_identity()}.wasm"
    if component.exists():
        return component
    say("building the Python interpreter for inferlets (once, about half a minute)")
    with tempfile.TemporaryDirectory(prefix="unfinished-", dir=cache) as room:
        output = Path(room, "interpreter.wasm")
        result = await trio.run_process(
            [sys.executable, "-m", __name__, str(output), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # so that all of it can be ended
            capture_stderr=True,
            check=False,
            deliver_cancel=_kill,
        )
        if result.returncode != 0:
            lines = result.stderr.decode(errors="replace").strip().splitlines()
            raise BadProgram(f"the Python interpreter cannot be built: {lines[-1:]}")
        os.replace(output, component)  # noqa: PTH105
    say("built the Python interpreter")
    return component


async def _kill(process: trio.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    die_with(int(sys.argv[2]))
    build_python_component(Path(sys.argv[1]))
