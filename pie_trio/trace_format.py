"""Events as a Chrome trace: host calls, batches and workers as bars, what went wrong as marks.

Pure. One process row for the instances, with a lane each, and one for each model, with its batches
and its workers' lives; times are microseconds since the first event. A bar whose end was never told
lasts until the last event. It keeps every event and invents none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import attrs

from pie_trio.events import (
    BatchDispatched,
    BatchSettled,
    Event,
    HostCalled,
    InstanceFinished,
    InstanceLaunched,
    WorkerDied,
    WorkerStarted,
    event_name,
)

Entry = dict[str, object]
MICROSECONDS = 1_000_000
INSTANCES = 1  # the process row of the instances; models follow


def chrome_trace(events: Sequence[Event]) -> list[Entry]:
    """The `traceEvents` of the format."""
    if not events:
        return []
    begin, end = min(event.at for event in events), max(_end_of(event) for event in events)
    return list(_Trace(begin, end).entries(events))


def _end_of(event: Event) -> float:
    return event.at + event.seconds if isinstance(event, HostCalled) else event.at


@attrs.define(eq=False)
class _Trace:
    """The walk over the events. `open` holds the bars that have begun."""

    begin: float
    end: float
    rows: dict[str, int] = attrs.field(factory=dict)  # instance -> lane, model -> process
    open: dict[tuple[str, object], tuple[Event, str, int, int]] = attrs.field(factory=dict)

    def entries(self, events: Iterable[Event]) -> Iterator[Entry]:
        yield _name("process_name", INSTANCES, 0, "instances")
        for event in events:
            yield from self._of(event)
        for started, name, process, lane in self.open.values():
            yield self._bar(name, started, self.end, process, lane)

    def _of(self, event: Event) -> Iterator[Entry]:
        match event:
            case InstanceLaunched():
                yield from self._instance(event.instance, event.program)
                lane = self.rows[event.instance]
                self.open["life", event.instance] = event, event.program, INSTANCES, lane
            case InstanceFinished():
                yield from self._close(("life", event.instance), event)
            case HostCalled():
                yield from self._instance(event.instance, "")
                lane = self.rows[event.instance]
                until = event.at + event.seconds
                name = event.function.partition("#")[2]
                yield self._bar(name, event, until, INSTANCES, lane)
            case BatchDispatched():
                yield from self._model(event.model)
                name = f"batch {event.number}"
                key = ("batch", (event.model, event.number))
                self.open[key] = event, name, self.rows[f"model {event.model}"], 1
                yield self._count(event)
            case BatchSettled():
                yield from self._close(("batch", (event.model, event.number)), event)
            case WorkerStarted():
                yield from self._model(event.model)
                name = f"worker, generation {event.generation}"
                self.open["worker", event.model] = event, name, self.rows[f"model {event.model}"], 2
            case WorkerDied():
                yield from self._close(("worker", event.model), event)
                yield self._mark(event)
            case _:
                yield self._mark(event)

    def _instance(self, instance: str, program: str) -> Iterator[Entry]:
        if instance not in self.rows:
            lane = self.rows[instance] = sum(1 for name in self.rows if " " not in name) + 1
            yield _name("thread_name", INSTANCES, lane, f"{program} {instance[:8]}".strip())

    def _model(self, model: str) -> Iterator[Entry]:
        row = f"model {model}"
        if row not in self.rows:
            models = sum(1 for name in self.rows if " " in name)
            process = self.rows[row] = INSTANCES + 1 + models
            yield _name("process_name", process, 0, row)
            yield _name("thread_name", process, 1, "batches")
            yield _name("thread_name", process, 2, "workers")

    def _close(self, key: tuple[str, object], ending: Event) -> Iterator[Entry]:
        """The bar whose end has come; none if its start is not in the journal."""
        found = self.open.pop(key, None)
        if found is not None:
            started, name, process, lane = found
            yield self._bar(name, started, ending.at, process, lane, ending)

    def _bar(
        self,
        name: str,
        event: Event,
        until: float,
        process: int,
        lane: int,
        end: Event | None = None,
    ) -> Entry:
        return {
            "ph": "X",
            "name": name,
            "cat": event_name(type(event)),
            "ts": self._time(event.at),
            "dur": max(0.0, round((until - event.at) * MICROSECONDS, 3)),
            "pid": process,
            "tid": lane,
            "args": {**_facts(event), **(_facts(end) if end is not None else {})},
        }

    def _count(self, event: BatchDispatched) -> Entry:
        return {
            "ph": "C",
            "name": "rows of a batch",
            "ts": self._time(event.at),
            "pid": self.rows[f"model {event.model}"],
            "args": {"rows": event.rows, "passes": event.passes},
        }

    def _mark(self, event: Event) -> Entry:
        return {
            "ph": "i",
            "s": "g",
            "name": event_name(type(event)).replace("_", " "),
            "cat": event.level,
            "ts": self._time(event.at),
            "pid": INSTANCES,
            "tid": 0,
            "args": _facts(event),
        }

    def _time(self, at: float) -> float:
        return round((at - self.begin) * MICROSECONDS, 3)


def _name(kind: str, process: int, lane: int, name: str) -> Entry:
    return {"ph": "M", "name": kind, "pid": process, "tid": lane, "args": {"name": name}}


def _facts(event: Event) -> dict[str, object]:
    names = (field.name for field in attrs.fields(type(event)))
    return {name: getattr(event, name) for name in names if name not in ("at", "level")}
