"""The events of a simulated run that production does not have: faults, broken rules, batches.

They are of the one schema (`pie_trio.events`), so that everything that reads a production trace
reads a simulated one.
"""

from __future__ import annotations

import attrs

from pie_trio.events import Event, Level


@attrs.frozen
class FaultStruck(Event):
    number: int
    point: str
    passing: int
    size: float
    level: Level = attrs.field(default="warning", init=False)


@attrs.frozen
class RuleBroken(Event):
    rule: str
    level: Level = attrs.field(default="error", init=False)


@attrs.frozen
class BatchBegun(Event):
    """A worker has read a batch."""

    process: int
    generation: int
    number: int
    passes: int
    pages: int
    level: Level = attrs.field(default="debug", init=False)


@attrs.frozen
class BatchLeft(Event):
    """The worker has executed it and is about to answer."""

    process: int
    number: int
    level: Level = attrs.field(default="debug", init=False)


@attrs.frozen
class PagesCounted(Event):
    """How many KV pages of a model are not free, told when it has changed."""

    model: str
    used: int
    pages: int
    level: Level = attrs.field(default="debug", init=False)


@attrs.frozen
class ScenarioEnded(Event):
    in_time: bool
