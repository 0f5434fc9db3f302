"""A simulated run as one page of HTML: lanes for who lived, batches, pages, faults, what broke.

Pure. The page needs nothing but itself: no server, no network, no font. Here the events become
lanes of bars and marks, placed by their order; the page draws them, by order or by virtual time.
Texts of guests get into the page as data only, never as markup.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

import attrs

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
    event_name,
)
from pie_trio.testing.report import event_facts, instance_names
from pie_trio.testing.timeline import (
    BatchBegun,
    BatchLeft,
    FaultStruck,
    PagesCounted,
    RuleBroken,
    ScenarioEnded,
)

TEMPLATE = Path(__file__).with_name("explain.html")
PLACE = "/*DATA*/"
FAULTS, CLIENTS, INSTANCES = "faults", "clients", "instances"
NEVER_OPEN = ("alive", "batch", "execution")  # what should have ended before the run does


def explanation(title: str, summary: Sequence[tuple[str, str]], events: Sequence[Event]) -> str:
    """The page. `summary`: what stands above the lanes, as names and texts."""
    lanes = _Lanes(instance_names(events), [_moment(event) for event in events])
    for place, event in enumerate(events):
        lanes.add(place, event)
    lanes.finish(len(events) - 1)
    data = {
        "title": title,
        "summary": list(summary),
        "times": lanes.times,
        "lanes": [attrs.asdict(lane) for lane in lanes.in_order()],
        "events": [
            [event_name(type(event)).replace("_", " "), event_facts(event, lanes.names)]
            for event in events
        ],
    }
    text = json.dumps(data, ensure_ascii=True).replace("<", "\\u003c")
    return TEMPLATE.read_text("utf-8").replace(PLACE, text)


def _moment(event: Event) -> float:
    """When it was told; calls are told when they end."""
    return event.at + event.seconds if isinstance(event, HostCalled) else event.at


@attrs.define
class Lane:
    """One row of the page. Bars: from, to, kind, label, height; marks: place, kind, label."""

    group: str
    name: str
    shape: str = "bars"  # or "steps": a curve of numbers
    bars: list[tuple[int, int, str, str]] = attrs.field(factory=list)
    marks: list[tuple[int, str, str]] = attrs.field(factory=list)
    steps: list[tuple[int, int]] = attrs.field(factory=list)
    top: int = 0  # of the curve


@attrs.define(eq=False)
class _Lanes:
    """The walk over the events; `open` holds the bars that have begun."""

    names: dict[str, str]
    times: list[float]
    lanes: dict[tuple[str, str], Lane] = attrs.field(factory=dict)
    open: dict[object, tuple[Lane, int, str, str]] = attrs.field(factory=dict)
    called: dict[str, int] = attrs.field(factory=dict)  # where an instance's last call ended
    models: dict[int, str] = attrs.field(factory=dict)  # process -> what it serves

    def in_order(self) -> list[Lane]:
        groups = list(dict.fromkeys(lane.group for lane in self.lanes.values()))
        last = [name for name in (CLIENTS, INSTANCES) if name in groups]
        ranks = [FAULTS, *(name for name in groups if name not in (FAULTS, *last)), *last]
        return sorted(self.lanes.values(), key=lambda lane: ranks.index(lane.group))

    def add(self, place: int, event: Event) -> None:
        match event:
            case FaultStruck() | RuleBroken() | ScenarioEnded():
                self._add_judgement(place, event)
            case InstanceLaunched() | InstanceFinished() | HostCalled() | PagesRefused():
                self._add_instance(place, event)
            case ClientConnected() | ClientDisconnected():
                self._add_client(place, event)
            case BatchDispatched() | BatchSettled() | PagesCounted():
                self._add_model(place, event)
            case WorkerStarted() | WorkerDied() | BatchBegun() | BatchLeft():
                self._add_worker(place, event)
            case _:
                pass

    def finish(self, last: int) -> None:
        """What has not ended lasts until the end."""
        for lane, begun, kind, label in self.open.values():
            shown = "open" if kind in NEVER_OPEN else kind
            lane.bars.append((begun, last, shown, f"{label}, to the end"))

    def _add_judgement(self, place: int, event: Event) -> None:
        match event:
            case FaultStruck():
                label = f"fault #{event.number}: {event.point}, passing {event.passing}"
                self._lane(FAULTS, "faults").marks.append((place, "fault", label))
            case RuleBroken():
                self._lane(FAULTS, "rules").marks.append((place, "broken", event.rule))
            case ScenarioEnded():
                label = "the scenario ended" if event.in_time else "the scenario was stuck"
                self._lane(FAULTS, "rules").marks.append((place, "note", label))
            case _:
                pass

    def _add_instance(self, place: int, event: Event) -> None:
        instance = str(getattr(event, "instance", ""))
        lane = self._lane(INSTANCES, self.names[instance])
        match event:
            case InstanceLaunched():
                self._begin(("instance", instance), lane, place, "alive", lane.name)
                self.called[instance] = place
            case InstanceFinished():
                kind = "good" if event.outcome == "return" else "bad"
                reason = f": {event.reason}" if event.reason else ""
                self._end(("instance", instance), place, kind, f" · {event.outcome}{reason}")
            case HostCalled():
                earliest = max(self.called.get(instance, 0), bisect_left(self.times, event.at))
                begun, self.called[instance] = min(earliest, place), place
                kind = "refused" if event.error_kind else "call"
                label = f"call {event.number}: {event.function} {event.error_kind}"
                lane.bars.append((begun, place, kind, label.strip()))
            case PagesRefused():
                label = f"{event.needed} pages refused, {event.free} free"
                lane.marks.append((place, "warning", label))
            case _:
                pass

    def _add_client(self, place: int, event: Event) -> None:
        match event:
            case ClientConnected():
                lane = self._lane(CLIENTS, f"connection {event.client}")
                self._begin(("client", event.client), lane, place, "client", lane.name)
            case ClientDisconnected():
                self._end(("client", event.client), place, "client", f" · {event.reason}")
            case _:
                pass

    def _add_model(self, place: int, event: Event) -> None:
        match event:
            case BatchDispatched():
                lane = self._lane(f"model {event.model}", "batches")
                label = f"batch {event.number}: {event.passes} passes, {event.rows} rows"
                self._begin(("batch", event.model, event.number), lane, place, "batch", label)
            case BatchSettled():
                self._end(("batch", event.model, event.number), place, "batch", " · settled")
            case PagesCounted():
                lane = self._lane(f"model {event.model}", "pages in use", "steps")
                lane.steps.append((place, event.used))
                lane.top = event.pages
            case _:
                pass

    def _add_worker(self, place: int, event: Event) -> None:
        match event:
            case WorkerStarted():
                lane = self._lane(f"model {event.model}", "worker")
                label = f"generation {event.generation}, process {event.process}"
                self._begin(("worker", event.model, event.generation), lane, place, "worker", label)
                self.models[event.process] = event.model
            case WorkerDied():
                key = ("worker", event.model, event.generation)
                self._end(key, place, "lost", f" · {event.reason}")
                self._lose(place, f"model {event.model}")
                label = f"generation {event.generation} died: {event.reason}"
                self._lane(f"model {event.model}", "worker").marks.append((place, "broken", label))
            case BatchBegun():
                lane = self._lane(f"model {self.models.get(event.process, '?')}", "executing")
                label = f"executes batch {event.number}: {event.passes} passes, {event.pages} pages"
                self._begin(("execution", event.process), lane, place, "execution", label)
            case BatchLeft():
                self._end(("execution", event.process), place, "execution", "")
            case _:
                pass

    def _lose(self, place: int, group: str) -> None:
        """A worker has died, and with it what it was to do."""
        for key, (lane, _begun, kind, _label) in list(self.open.items()):
            if lane.group == group and kind in ("batch", "execution"):
                self._end(key, place, "lost", " · lost with its worker")

    def _lane(self, group: str, name: str, shape: str = "bars") -> Lane:
        return self.lanes.setdefault((group, name), Lane(group, name, shape))

    def _begin(self, key: object, lane: Lane, place: int, kind: str, label: str) -> None:
        self.open[key] = lane, place, kind, label

    def _end(self, key: object, place: int, kind: str, more: str) -> None:
        found = self.open.pop(key, None)
        if found is not None:
            lane, begun, _kind, label = found
            lane.bars.append((begun, place, kind, label + more))
