"""Events as lines."""

from __future__ import annotations

import io
import json

from pie_trio.events import BatchSettled, Event, InstanceFinished, WorkerDied
from pie_trio.log import EventLog, as_console_line, as_json_line


def _line(event: Event, form: str = "console") -> str:
    stream = io.StringIO()
    formatter = as_console_line if form == "console" else as_json_line
    EventLog(stream, formatter, wall_at_start=86_400.0, clock_at_start=100.0)(event)
    return stream.getvalue()


def test_a_console_line_shows_time_level_name_and_facts() -> None:
    line = _line(WorkerDied(at=101.5, model="m", generation=2, reason="killed by signal 9"))
    expected = '00:00:01.500 error   worker died model=m generation=2 reason="killed by signal 9"\n'
    assert line == expected


def test_a_json_line_is_one_object_with_the_schema_version() -> None:
    line = _line(WorkerDied(at=100.0, model="m", generation=2, reason="x"), "json")
    assert json.loads(line) == {
        "schema": 1,
        "event": "worker_died",
        "level": "error",
        "time": "1970-01-02T00:00:00.000000+00:00",
        "at": 100.0,
        "model": "m",
        "generation": 2,
        "reason": "x",
    }


def test_a_text_of_a_guest_cannot_forge_a_line() -> None:
    event = InstanceFinished(
        at=100.0, instance="i", program="p", outcome="error", reason="a\n00:00 fake", seconds=1.0
    )
    assert _line(event).count("\n") == 1
    assert _line(event, "json").count("\n") == 1


def test_details_are_left_out_unless_asked_for() -> None:
    assert _line(BatchSettled(at=100.0, model="m", number=1, seconds=0.1)) == ""


def test_a_closed_stream_loses_lines_and_nothing_else() -> None:
    stream = io.StringIO()
    stream.close()
    log = EventLog(stream, as_console_line, wall_at_start=0.0, clock_at_start=0.0)
    log(WorkerDied(at=0.0, model="m", generation=1, reason="x"))
