"""A journal: the events of one run as lines of JSON in a file, a head first.

Written line by line as things happen, so whatever dies, what was told until then is there. A full
disk or the bound `journal_bytes` ends the journal and nothing else. Reading trusts nothing: every
line is checked, and a file that is damaged or made up is refused with the number of the line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NoReturn, TypeVar

import attrs
import cattrs

from pie_trio.config import Limits
from pie_trio.errors import BadJournal
from pie_trio.events import (
    SCHEMA_VERSION,
    Event,
    HostCalled,
    InstanceFinished,
    RecordingStarted,
    event_name,
)
from pie_trio.settings_file import complaints, strict_converter

T = TypeVar("T")
FORMAT = "pie-trio journal 1"
SHOWN_CHARACTERS = 120


@attrs.frozen
class Head:
    """The first line: how to read the others, and what was run."""

    version: str  # of pie-trio
    program: str  # as it was named, files by their whole path
    wall: float  # seconds since 1970 when the clock of the events showed `at`
    at: float
    format: str = FORMAT
    schema: int = SCHEMA_VERSION


@attrs.define(eq=False)
class JournalWriter:
    """A sink of events. `problem` says why it stopped, if it did."""

    stream: BinaryIO  # unbuffered: a line is in the file when it has been told
    limits: Limits
    problem: str | None = None
    _bytes: int = 0

    def begin(self, head: Head) -> None:
        self._write(attrs.asdict(head))

    def __call__(self, event: Event) -> None:
        self._write({"event": event_name(type(event)), **_facts(event)})

    def _write(self, record: Mapping[str, object]) -> None:
        if self.problem is not None:
            return
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        line = text.encode(errors="backslashreplace") + b"\n"  # half a character is escaped
        if self._bytes + len(line) > self.limits.journal_bytes:
            self.problem = f"it has reached {self.limits.journal_bytes} bytes (journal_bytes)"
            return
        self._bytes += len(line)
        try:
            self.stream.write(line)
        except OSError as error:
            self.problem = f"it cannot be written: {error}"


def _facts(event: Event) -> dict[str, object]:
    """What the kind of the event does not say already; times to the microsecond."""
    facts: dict[str, object] = {}
    for field in attrs.fields(type(event)):
        value = getattr(event, field.name)
        if field.default is attrs.NOTHING or value != field.default:
            facts[field.name] = round(value, 6) if isinstance(value, float) else value
    return facts


@attrs.frozen(eq=False)
class Journal:
    """What a file told, in its order."""

    head: Head
    events: Sequence[Event]
    torn: bool  # the last line was cut off, and is left out

    def recording(self) -> RecordingStarted:
        """The instance whose calls were kept. Raises `BadJournal`."""
        for event in self.events:
            if isinstance(event, RecordingStarted):
                return event
        raise BadJournal("the journal holds no recording of an instance")

    def calls(self, instance: str) -> list[HostCalled]:
        """The instance's host calls, numbered without a gap. Raises `BadJournal`."""
        calls = [
            event
            for event in self.events
            if isinstance(event, HostCalled) and event.instance == instance
        ]
        for number, call in enumerate(calls, start=1):
            if call.number != number:
                raise BadJournal(f"host call {number} is missing: the next one is {call.number}")
        return calls

    def family_calls(self, ancestor: str) -> Iterator[tuple[int, HostCalled]]:
        """Those of the instances that live inside of this one, each with how many calls of its
        own had ended before."""
        family, own_calls = {ancestor}, 0
        for event in self.events:
            if isinstance(event, RecordingStarted) and event.parent in family:
                family.add(event.instance)
            elif isinstance(event, HostCalled) and event.instance == ancestor:
                own_calls += 1
            elif isinstance(event, HostCalled) and event.instance in family:
                yield own_calls, event

    def ending(self, instance: str) -> InstanceFinished | None:
        """How the instance ended; none if the journal ends before."""
        for event in self.events:
            if isinstance(event, InstanceFinished) and event.instance == instance:
                return event
        return None


def read_journal(path: Path, limits: Limits) -> Journal:
    """Raises `BadJournal`."""
    try:
        size = path.stat().st_size
        if size > limits.journal_bytes:
            raise BadJournal(f"{size} bytes; at most {limits.journal_bytes} (journal_bytes)")
        return _parse(path.read_bytes())
    except (OSError, BadJournal) as error:
        raise BadJournal(f"{path} is no journal that can be read: {error}") from None


def _parse(data: bytes) -> Journal:
    lines = data.split(b"\n")
    torn = bool(lines.pop())
    if not lines:
        raise BadJournal("its first line is not complete")
    converter = strict_converter(forbid_extra_keys=False)
    converter.register_structure_hook_func(lambda kind: kind is object, lambda value, _kind: value)
    kinds = {event_name(kind): kind for kind in Event.__subclasses__()}
    head = _head(converter, lines[0])
    events = []
    for number, line in enumerate(lines[1:], start=2):
        record = _object(number, line)
        name = record.get("event")
        if not isinstance(name, str) or name not in kinds:
            raise BadJournal(f"line {number}: no event is named {name!r:.{SHOWN_CHARACTERS}}")
        events.append(_structured(converter, number, record, kinds[name]))
    return Journal(head, events, torn)


def _head(converter: cattrs.Converter, line: bytes) -> Head:
    record = _object(1, line)
    if record.get("format") != FORMAT or record.get("schema") != SCHEMA_VERSION:
        found = f"{record.get('format')!r:.{SHOWN_CHARACTERS}}, schema {record.get('schema')!r:.20}"
        raise BadJournal(f"line 1 says {found}; known: {FORMAT!r}, schema {SCHEMA_VERSION}")
    return _structured(converter, 1, record, Head)


def _structured(
    converter: cattrs.Converter, number: int, record: dict[str, object], kind: type[T]
) -> T:
    try:
        return converter.structure(record, kind)
    except cattrs.BaseValidationError as error:
        told = "; ".join(complaints(error))
        raise BadJournal(f"line {number}: {told:.{SHOWN_CHARACTERS}}") from None


def _object(number: int, line: bytes) -> dict[str, object]:
    try:
        record = json.loads(line, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise BadJournal(f"line {number} is no JSON: {error}") from None
    if not isinstance(record, dict):
        raise BadJournal(f"line {number} is no JSON object")
    return record


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)
