"""Ctrl-C while the simulator works: what was found is told, the code is 130, nobody is left."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from pie_trio.testing.interrupts import noticing_interrupts
from tests.support.command import SECONDS, start

ENDLESS = {
    "run": ("--seeds", "0..100000", "--scenario", "scripted"),
    "mutants": ("--processes", "2"),
    "cancel-everywhere": ("--scenario", "all"),
}
TOLD = {"run": r"seeds a second", "mutants": " found, median ", "cancel-everywhere": "cancelled at"}
LEAVE_SECONDS = 10.0


def _working(process: psutil.Process, count: int = 2) -> list[psutil.Process]:
    """Its children, when so many have computed for a while."""
    while True:
        children = process.children(recursive=True)
        if sum(child.cpu_times().user > 1.0 for child in children) >= count:
            return children
        assert process.is_running(), "it works until it is interrupted"


@pytest.mark.parametrize("verb", sorted(ENDLESS))
def test_ctrl_c_ends_with_130_a_report_and_no_child(verb: str, tmp_path: Path) -> None:
    process = start(tmp_path, "sim", verb, *ENDLESS[verb])
    children = _working(psutil.Process(process.pid))
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, errors
    assert TOLD[verb] in out
    assert "Traceback" not in errors
    _, alive = psutil.wait_procs(children, timeout=LEAVE_SECONDS)
    assert not alive


def test_the_first_interrupt_is_noted_and_the_second_one_raised() -> None:
    before = signal.getsignal(signal.SIGINT)
    with noticing_interrupts() as interrupted:
        assert not interrupted()
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
