"""Journals as time-lines: valid for the viewers, nothing lost, nothing that overlaps by half."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from pie_trio.events import (
    BatchDispatched,
    BatchSettled,
    Event,
    HostCalled,
    InstanceFinished,
    InstanceLaunched,
    PagesRefused,
    WorkerDied,
    WorkerStarted,
)
from pie_trio.trace_format import chrome_trace
from tests.support.command import pie, slow_config, start
from tests.support.journals import record

STORY: list[Event] = [
    WorkerStarted(10.0, "m", 1, 77, 8, 0.5),
    InstanceLaunched(11.0, "first", "p@1", "local"),
    InstanceLaunched(11.5, "second", "p@1", "local"),
    HostCalled(12.0, "first", 1, "a:b/c#call", 0.25, ("x",), 7),
    BatchDispatched(12.1, "m", 1, 2, 5),
    BatchSettled(12.2, "m", 1, 0.1),
    PagesRefused(12.3, "m", "first", 9, 8),
    InstanceFinished(13.0, "first", "p@1", "return", "", 2.0),
    BatchDispatched(13.1, "m", 2, 1, 1),
    WorkerDied(13.5, "m", 1, "killed"),
]


def of_phase(entries: list[dict[str, Any]], phase: str) -> list[dict[str, Any]]:
    return [entry for entry in entries if entry["ph"] == phase]


def test_bars_marks_and_names_are_where_they_belong() -> None:
    entries = chrome_trace(STORY)
    bars = {entry["name"]: entry for entry in of_phase(entries, "X")}
    assert bars["call"]["ts"] == 2_000_000
    assert bars["call"]["dur"] == 250_000
    assert bars["call"]["args"]["arguments"] == ("x",)
    assert bars["batch 1"]["dur"] == pytest.approx(100_000)
    assert bars["batch 2"]["dur"] == pytest.approx(400_000), "it never ended: until the last event"
    assert bars["worker, generation 1"]["args"]["reason"] == "killed"
    assert {entry["name"] for entry in of_phase(entries, "i")} == {"pages refused", "worker died"}
    names = {
        (entry["pid"], entry["tid"]): entry["args"]["name"] for entry in of_phase(entries, "M")
    }
    assert names[bars["call"]["pid"], bars["call"]["tid"]] == "p@1 first"
    assert names[bars["batch 1"]["pid"], 0] == "model m"


def test_no_events_are_an_empty_trace() -> None:
    assert chrome_trace([]) == []


async def test_bars_of_a_lane_lie_inside_each_other_or_apart(tmp_path: Path) -> None:
    recorded = await record(tmp_path, "parallel-generation", "--max-tokens", "8")
    entries = json.loads(json.dumps(chrome_trace(recorded.events)))
    lanes = defaultdict(list)
    for bar in of_phase(entries, "X"):
        assert bar["ts"] >= 0
        assert bar["dur"] >= 0
        lanes[bar["pid"], bar["tid"]].append((bar["ts"], bar["ts"] + bar["dur"]))
    assert sum(map(len, lanes.values())) > 50
    for bars in lanes.values():
        open_ends: list[float] = []
        for begin, end in sorted(bars, key=lambda bar: (bar[0], -bar[1])):
            while open_ends and open_ends[-1] <= begin + 0.002:  # rounded to nanoseconds
                open_ends.pop()
            assert not open_ends or end <= open_ends[-1] + 0.002
            open_ends.append(end)


def test_a_run_is_recorded_replayed_and_drawn_by_the_command_line(tmp_path: Path) -> None:
    journal, drawn = tmp_path / "run.journal", tmp_path / "run.json"
    flags = ("run", "--pretend", "--record", str(journal))
    ran = pie(tmp_path, *flags, "helloworld")
    assert ran.returncode == 0, ran.stderr
    again = pie(tmp_path, "replay", str(journal))
    assert (again.returncode, again.stdout) == (0, ran.stdout), again.stderr
    assert "the same as recorded" in again.stderr
    other = pie(tmp_path, "replay", str(journal), "--program", "kvs")
    assert other.returncode == 5
    assert "host call 2: recorded: " in other.stderr
    traced = pie(tmp_path, "trace", str(journal), "-o", str(drawn))
    assert traced.returncode == 0, traced.stderr
    assert any(entry["ph"] == "X" for entry in json.loads(drawn.read_text())["traceEvents"])


def test_what_cannot_be_recorded_or_read_is_refused_in_one_line(tmp_path: Path) -> None:
    missing = str(tmp_path / "no" / "file")
    for code, arguments in (
        (4, ("replay", missing)),
        (4, ("trace", missing, "-o", str(tmp_path / "x"))),
        (2, ("run", "--pretend", "--record", missing, "helloworld")),
        (2, ("run", "--server", "ws://127.0.0.1:1", "--record", missing, "helloworld")),
    ):
        ended = pie(tmp_path, *arguments)
        assert ended.returncode == code, ended.stderr
        assert "Traceback" not in ended.stderr


def test_a_run_that_is_killed_leaves_a_journal_of_all_it_did(tmp_path: Path) -> None:
    journal = tmp_path / "killed.journal"
    flags = ("run", "--config", str(slow_config(tmp_path)), "--record", str(journal))
    process = start(tmp_path, *flags, "text-completion", "--", "--prompt", "hello")
    assert process.stdout is not None
    assert process.stdout.read(3)
    process.kill()
    process.communicate()
    ended = pie(tmp_path, "replay", str(journal))
    assert ended.returncode == 5
    assert "how it went on is not known" in ended.stderr
    assert len(ended.stdout) >= 3
