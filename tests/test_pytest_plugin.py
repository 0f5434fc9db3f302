"""The pytest plugin: seeds, what a failing test says, and that the line it prints repeats it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.test_simulation_docs import run_pytest

FAILING = """
import pytest

async def fragile(world):
    if await world.run("sim-decode", 1, 5, 4) is None:
        raise ValueError("no value")

@pytest.mark.seeds(0, 12)
def test_rules(simulation):
    simulation(fragile, faults="worker")
"""

WRONG_AFTERWARDS = """
def test_afterwards(simulation):
    outcome = simulation("keys", faults="none")
    assert outcome.seed == 7
"""


def test_each_seed_is_a_test_and_a_failure_says_how_to_repeat_it(tmp_path: Path) -> None:
    ended = run_pytest(tmp_path, "test_fragile.py", FAILING)
    assert ended.returncode == 1
    counted = re.search(r"(\d+) failed, (\d+) passed", ended.stdout)
    assert counted is not None
    assert int(counted.group(1)) + int(counted.group(2)) == 12
    assert "violated    the scenario saw ValueError: no value" in ended.stdout
    replay = re.search(r"replay +pytest (.*)", ended.stdout)
    assert replay is not None
    [node] = shlex.split(replay.group(1))
    assert re.fullmatch(r"test_fragile\.py::test_rules\[seed-\d+\]", node)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", node]
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "1 failed" in again.stdout


def test_a_test_that_fails_after_its_run_still_tells_the_run(tmp_path: Path) -> None:
    ended = run_pytest(tmp_path, "test_wrong.py", WRONG_AFTERWARDS)
    assert ended.returncode == 1
    assert re.search(r"seed 0, scenario keys, \w+: no fault", ended.stdout)
    assert "replay: pytest test_wrong.py::test_afterwards" in ended.stdout


def test_a_marker_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    text = "import pytest\n\n@pytest.mark.seeds('many')\ndef test_it(simulation): pass\n"
    ended = run_pytest(tmp_path, "test_marker.py", text)
    assert ended.returncode != 0
    assert "takes two numbers" in ended.stdout + ended.stderr


def test_a_session_without_such_a_test_loads_nothing_of_the_harness(tmp_path: Path) -> None:
    text = (
        "import sys\n\ndef test_it():\n"
        "    assert 'pie_trio.testing.plugin' in sys.modules\n"
        "    assert 'pie_trio.testing.simulation' not in sys.modules\n"
        "    assert 'pie_trio.engine' not in sys.modules\n"
    )
    ended = run_pytest(tmp_path, "test_light.py", text)
    assert ended.returncode == 0, ended.stdout
