"""One versioned event schema. Logs come from it; metrics, traces and replay will be views of it.

An event is a fact about the past, frozen, flat, with the time of the injected clock. Emitting one
never blocks and never fails.
"""

from __future__ import annotations

from typing import Literal

import attrs

SCHEMA_VERSION = 1

Level = Literal["debug", "info", "warning", "error"]


@attrs.frozen
class Event:
    """The root: `at` is Trio time in seconds."""

    at: float

    level: Level = attrs.field(default="info", init=False)


@attrs.frozen
class ServerListening(Event):
    address: str


@attrs.frozen
class ServerStopping(Event):
    reason: str
    instances: int


@attrs.frozen
class ClientConnected(Event):
    client: int
    level: Level = attrs.field(default="debug", init=False)


@attrs.frozen
class ClientDisconnected(Event):
    client: int
    reason: str
    level: Level = attrs.field(default="debug", init=False)


@attrs.frozen
class InstanceLaunched(Event):
    instance: str
    program: str
    tenant: str


@attrs.frozen
class InstanceFinished(Event):
    instance: str
    program: str
    outcome: str  # "return", or the name of the error
    reason: str
    seconds: float


@attrs.frozen
class WorkerStarted(Event):
    model: str
    generation: int
    process: int
    pages: int
    seconds: float


@attrs.frozen
class WorkerDied(Event):
    model: str
    generation: int
    reason: str
    level: Level = attrs.field(default="error", init=False)


@attrs.frozen
class BatchDispatched(Event):
    model: str
    number: int
    passes: int
    rows: int
    level: Level = attrs.field(default="debug", init=False)


@attrs.frozen
class BatchSettled(Event):
    model: str
    number: int
    seconds: float
    level: Level = attrs.field(default="debug", init=False)


@attrs.frozen
class PagesRefused(Event):
    model: str
    instance: str
    needed: int
    free: int
    level: Level = attrs.field(default="warning", init=False)


@attrs.frozen
class ExportDropped(Event):
    model: str
    tenant: str
    name: str
    pages: int
