"""The page of a run: what lies in which lane, and that no text can become markup."""

from __future__ import annotations

import json
import re
from typing import Any

from pie_trio.events import (
    BatchDispatched,
    BatchSettled,
    ClientConnected,
    ClientDisconnected,
    Event,
    HostCalled,
    InstanceFinished,
    InstanceLaunched,
    PagesRefused,
    WorkerDied,
    WorkerStarted,
)
from pie_trio.testing.explain import explanation
from pie_trio.testing.report import event_line, instance_names
from pie_trio.testing.timeline import BatchBegun, FaultStruck, PagesCounted, RuleBroken

HOSTILE = "</script><script>alert(1)</script><!--"

STORY: list[Event] = [
    WorkerStarted(1.0, "m", 1, 7, 8, 0.1),
    ClientConnected(1.1, 1),
    InstanceLaunched(1.2, "uuid-a", "p@1", "local"),
    BatchDispatched(1.3, "m", 1, 2, 5),
    BatchBegun(1.35, 7, 1, 1, 2, 3),
    HostCalled(1.3, "uuid-a", 1, "a:b/c#call", 0.1),
    PagesCounted(1.4, "m", 5, 8),
    PagesRefused(1.5, "m", "uuid-a", 9, 3),
    BatchSettled(1.6, "m", 1, 0.3),
    FaultStruck(1.7, 4, "worker.crash-idle", 0, 0.5),
    BatchDispatched(1.8, "m", 2, 1, 1),
    WorkerDied(1.9, "m", 1, "killed"),
    RuleBroken(2.0, "page conservation"),
    InstanceFinished(2.1, "uuid-a", "p@1", "WorkerLost", HOSTILE, 0.9),
    ClientDisconnected(2.2, 1, "closed"),
]


def drawn(events: list[Event]) -> tuple[str, dict[str, Any]]:
    page = explanation("a run", [("replay", HOSTILE)], events)
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    return page, json.loads(data.group(1))


def lane(data: dict[str, Any], group: str, name: str) -> dict[str, Any]:
    return next(each for each in data["lanes"] if (each["group"], each["name"]) == (group, name))


def test_texts_of_guests_never_become_markup() -> None:
    page, data = drawn(STORY)
    assert page.count("<script") == 2, "the data and the program of the page itself"
    assert "alert(1)" in data["summary"][0][1]
    assert any("alert(1)" in facts for _, facts in data["events"])


def test_bars_reach_from_the_event_that_began_them_to_the_one_that_ended_them() -> None:
    _, data = drawn(STORY)
    assert lane(data, "model m", "batches")["bars"][0][:3] == [3, 8, "batch"]
    assert lane(data, "clients", "connection 1")["bars"][0][:3] == [1, 14, "client"]
    life = lane(data, "instances", "#0 p")
    assert [2, 13, "bad"] in [bar[:3] for bar in life["bars"]]
    assert next(bar for bar in life["bars"] if bar[2] == "call")[:2] == [3, 5]
    assert life["marks"] == [[7, "warning", "9 pages refused, 3 free"]]


def test_what_a_dead_worker_had_to_do_is_lost_with_it() -> None:
    _, data = drawn(STORY)
    assert lane(data, "model m", "batches")["bars"][1][:3] == [10, 11, "lost"]
    assert lane(data, "model m", "executing")["bars"][0][:3] == [4, 11, "lost"]
    assert lane(data, "model m", "worker")["bars"][0][:3] == [0, 11, "lost"]


def test_pages_are_a_curve_and_faults_and_broken_rules_are_marks_above_all() -> None:
    _, data = drawn(STORY)
    assert lane(data, "model m", "pages in use")["steps"] == [[6, 5]]
    assert [each["group"] for each in data["lanes"][:2]] == ["faults", "faults"]
    assert lane(data, "faults", "faults")["marks"][0][0] == 9
    assert lane(data, "faults", "rules")["marks"] == [[12, "broken", "page conservation"]]


def test_what_has_not_ended_lasts_to_the_end_and_is_told() -> None:
    _, data = drawn(STORY[:4])
    assert lane(data, "instances", "#0 p")["bars"] == [[2, 3, "open", "#0 p, to the end"]]
    assert lane(data, "model m", "worker")["bars"][0][:3] == [0, 3, "worker"]


def test_a_run_without_events_is_an_empty_page() -> None:
    _, data = drawn([])
    assert data["lanes"] == data["events"] == []


def test_a_line_of_an_event_names_instances_by_number_and_program() -> None:
    names = instance_names(STORY)
    assert event_line(STORY[2], names).split() == [
        "1.2000",
        "instance",
        "launched",
        "instance=#0",
        "p",
    ]
    assert len(event_line(STORY[13], names)) <= 120
