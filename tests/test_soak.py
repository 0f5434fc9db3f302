"""Must hold: real processes killed, clients that go; short rounds of `pie-trio bench soak`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bars.soak import bars, quantile, slope
from benchmarks.soak import soak_with_clients
from benchmarks.soak_server import kill_servers
from benchmarks.soak_worker import kill_workers
from pie_trio.cli.exit_codes import ExitCode
from tests.support.command import pie
from tests.world import shared_home

BARS = Path(__file__).parents[1] / "benchmarks" / "bars" / "soak.py"
DETECTION = re.compile("detection p99")  # of six kills the worst: CI's machine, not the engine


def quiet(_line: str) -> None:
    """Nobody reads how far it has come."""


def broken(record: dict[str, Any]) -> list[dict[str, Any]]:
    return [bar for bar in bars(record) if not (bar["holds"] or DETECTION.search(bar["name"]))]


@pytest.mark.slow
async def test_a_killed_worker_ends_its_calls_by_name_and_costs_the_other_model_no_token(
    tmp_path: Path,
) -> None:
    part = await kill_workers(None, 6, 64, shared_home(tmp_path), quiet)
    assert broken({"workers": {"pretend": part}}) == [], [r["strangers"] for r in part["rounds"]]


@pytest.mark.slow
async def test_nothing_of_a_killed_server_is_left_after_a_second() -> None:
    kills = await kill_servers(
        None, {"starting": 1, "idle": 1, "in a batch": 1, "compiling": 1}, quiet
    )
    assert all(kill["processes"] > 0 for kill in kills)
    assert broken({"servers": kills}) == []


@pytest.mark.slow
async def test_clients_that_come_and_go_leave_no_page_and_are_told_each_end_once() -> None:
    part = await soak_with_clients(64, 8.0, quiet)
    assert part["went"] > 0
    assert part["came_back"] > 0
    assert broken({"clients": part}) == []


def _worker_part(**changes: object) -> dict[str, Any]:
    one = {
        "known_at": 2.01,
        "killed_at": 2.0,
        "in_batch": True,
        "live": 2,
        "bystanders_live": 1,
        "ends": ["WorkerLost", "return"],
        "bystanders": ["text"],
    }
    return {"victims": 2, "expected": ["text"], "rounds": [one, {**one, **changes}]}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"known_at": 2.06}, "detection p99"),
        ({"in_batch": False}, "within a batch"),
        ({"live": 1}, "live instances"),
        ({"bystanders_live": 0}, "ran then"),
        ({"ends": ["WorkerLost", "hangs"]}, "that hang"),
        ({"ends": ["WorkerLost", "KeyError"]}, "without a name"),
        ({"bystanders": ["tex"]}, "another text"),
    ],
)
def test_a_round_that_breaks_a_promise_fails_its_bar_only(
    changes: dict[str, object], name: str
) -> None:
    failed = [
        bar["name"]
        for bar in bars({"workers": {"pretend": _worker_part(**changes)}})
        if not bar["holds"]
    ]
    assert [name in each for each in failed] == [True]


def test_a_slope_is_that_of_the_memory_at_rest_after_the_first_one() -> None:
    assert slope([[0.0, 50.0], [30.0, 100.0], [60.0, 105.0], [90.0, 110.0]]) == pytest.approx(10.0)
    assert slope([[0.0, 50.0], [30.0, 100.0]]) == 0.0
    assert quantile([float(n) for n in range(1, 101)], 0.99) == 99.0


def test_the_bars_are_computed_from_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "soak.json"
    path.write_text(json.dumps({"workers": {"pretend": _worker_part()}}), "utf-8")
    command = [sys.executable, "-I", str(BARS), str(path)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert all(json.loads(line)["holds"] for line in printed.splitlines())
    assert len(printed.splitlines()) == 8


def test_a_soak_of_a_part_that_there_is_not_is_refused_by_its_name(tmp_path: Path) -> None:
    ended = pie(tmp_path, "bench", "soak", "--quick", "--only", "nothing")
    assert ended.returncode == ExitCode.USAGE, ended.stderr
    assert "invalid choice: 'nothing'" in ended.stderr
