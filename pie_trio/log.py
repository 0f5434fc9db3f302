"""Events as lines of text: for a person, or as JSON for a machine.

It owns no state but its stream. Writing an event never raises and never waits for a reader longer
than the stream itself does; when the stream is gone, lines are lost and nothing else happens. It
never decides anything: what is worth an event is decided where it happens.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TextIO

import attrs

from pie_trio.events import SCHEMA_VERSION, Event, event_name

SEVERITY = {"debug": 0, "info": 1, "warning": 2, "error": 3}
Formatter = Callable[[Event, float], str]


@attrs.frozen(eq=False)
class EventLog:
    """A sink for `Ports.emit`: one line an event on the stream."""

    stream: TextIO
    form: Formatter
    wall_at_start: float  # the wall clock when Trio's clock showed `clock_at_start`
    clock_at_start: float
    least: str = "info"

    def __call__(self, event: Event) -> None:
        if SEVERITY[event.level] < SEVERITY[self.least]:
            return
        wall = self.wall_at_start + event.at - self.clock_at_start
        with contextlib.suppress(OSError, ValueError):  # the stream is closed or broken
            self.stream.write(self.form(event, wall) + "\n")
            self.stream.flush()


def as_console_line(event: Event, wall: float) -> str:
    fields = " ".join(f"{name}={_plain(value)}" for name, value in _facts(event).items())
    moment = datetime.fromtimestamp(wall, UTC).strftime("%H:%M:%S.%f")[:-3]
    return (
        f"{moment} {event.level:<7} {event_name(type(event)).replace('_', ' ')} {fields}".rstrip()
    )


def as_json_line(event: Event, wall: float) -> str:
    record = {
        "schema": SCHEMA_VERSION,
        "event": event_name(type(event)),
        "level": event.level,
        "time": datetime.fromtimestamp(wall, UTC).isoformat(timespec="microseconds"),
        "at": event.at,
        **_facts(event),
    }
    return json.dumps(record, ensure_ascii=False)


def _facts(event: Event) -> dict[str, object]:
    values = attrs.asdict(event)
    return {name: value for name, value in values.items() if name not in ("at", "level")}


def _plain(value: object) -> str:
    """One word, or a quoted text, never a line break: a guest cannot forge a line of the log."""
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    return text if re.fullmatch(r"[\w.@:/+-]+", text) else json.dumps(text, ensure_ascii=False)
