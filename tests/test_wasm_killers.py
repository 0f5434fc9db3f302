"""What could abort the whole process does not: each in a child process, which must end in order.

A panic inside wasmtime or an overflow of a fiber's stack shows as a signal, which no test of this
process would survive.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PREAMBLE = """
import os, signal, sys, threading, time
from pathlib import Path
import trio
from tests.guests import Deed, Probe, open_world

DIRECTORY = Path(sys.argv[1])
# A test run in the background of a shell ignores Ctrl-C, and so would its children.
signal.signal(signal.SIGINT, signal.default_int_handler)
"""


def _run_child(directory: Path, body: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(body), str(directory)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("deed", ["SOON_FOR_EVER", "POLL_UNTIL_READY", "KEEP_THINGS"])
def test_ctrl_c_at_any_moment_ends_the_process_in_order(tmp_path: Path, deed: str) -> None:
    """Sixty interrupts, at sixty moments, of guests that call the host as fast as they can."""
    body = f"""
        def interrupt_after(seconds):
            time.sleep(seconds)
            os.kill(os.getpid(), signal.SIGINT)

        async def main(seconds):
            threading.Thread(target=interrupt_after, args=(seconds,)).start()
            async with open_world(DIRECTORY) as world:
                while True:
                    await world.run(Probe(Deed.{deed}, amount=10_000))

        for round in range(60):
            try:
                trio.run(main, 0.01 + round * 0.00037)
            except KeyboardInterrupt:
                print("interrupted")
    """

    result = _run_child(tmp_path, body)

    assert (result.returncode, result.stdout) == (0, "interrupted\n" * 60), result.stderr[-2000:]


def test_deep_recursion_of_the_host_on_the_guests_stack_is_an_ordinary_error(
    tmp_path: Path,
) -> None:
    """Sorting with a key nests C frames, the worst that pure Python can do to a stack."""
    body = """
        def nest(depth):
            return sorted([depth], key=lambda each: nest(depth + 1))

        async def main():
            async with open_world(DIRECTORY) as world:
                try:
                    await world.run(Probe(Deed.FAIL, on_fail=lambda: nest(0)))
                except RecursionError:
                    print("too deep")

        trio.run(main)
    """

    result = _run_child(tmp_path, body)

    assert (result.returncode, result.stdout) == (0, "too deep\n"), result.stderr[-2000:]


def test_guests_that_die_at_every_moment_of_their_lives_leave_the_process_alone(
    tmp_path: Path,
) -> None:
    """Cancelled after each number of scheduler steps, waiting, running and half instantiated."""
    body = """
        class Steps(trio.abc.Instrument):
            def __init__(self, scope, left):
                self.scope, self.left = scope, left

            def before_task_step(self, task):
                self.left -= 1
                if self.left == 0:
                    self.scope.cancel()

        async def main():
            async with open_world(DIRECTORY) as world:
                for deed in (Deed.WAIT_TIMES, Deed.SOON_TIMES, Deed.POLL_EVENTS, Deed.FAIL_LATER):
                    for step in range(1, 12):
                        probe = Probe(deed, amount=5, wait_seconds=0)
                        with trio.CancelScope() as scope:
                            instrument = Steps(scope, step)
                            trio.lowlevel.add_instrument(instrument)
                            with trio.move_on_after(0.05):
                                await world.run(probe)
                        trio.lowlevel.remove_instrument(instrument)
                        assert not world.sandbox.borders
            print("all gone")

        trio.run(main)
    """

    result = _run_child(tmp_path, body)

    assert (result.returncode, result.stdout) == (0, "all gone\n"), result.stderr[-2000:]


def test_a_thousand_waiting_guests_fit_into_one_process(tmp_path: Path) -> None:
    body = """
        async def main():
            probes = [Probe(Deed.WAIT_TIMES) for _ in range(1000)]
            async with open_world(DIRECTORY) as world, trio.open_nursery() as nursery:
                for probe in probes:
                    nursery.start_soon(world.run, probe)
                for probe in probes:
                    await probe.waiting.wait()
                assert len(world.sandbox.borders) == 1000
                nursery.cancel_scope.cancel()
            assert not world.sandbox.borders
            print("all gone")

        trio.run(main)
    """

    result = _run_child(tmp_path, body)

    assert (result.returncode, result.stdout) == (0, "all gone\n"), result.stderr[-2000:]
