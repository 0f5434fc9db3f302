"""One versioned event schema: logs, journals, replay, traces and time-lines are views of it.

An event is a fact about the past, frozen, flat, with the time of the injected clock. Emitting one
never blocks and never fails. Values of guests are in the form of JSON (`wasm.recording`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import attrs

SCHEMA_VERSION = 1

Level = Literal["debug", "info", "warning", "error"]


@attrs.frozen
class Event:
    """The root: `at` is Trio time in seconds."""

    at: float

    level: Level = attrs.field(default="info", init=False)


def event_name(kind: type[Event]) -> str:
    """`WorkerDied` -> `worker_died`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


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
    steps: int = 1
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


@attrs.frozen
class RecordingStarted(Event):
    """An instance whose host calls are written down; all that a replay needs beside the replies."""

    instance: str
    program: str
    digest: str  # of the program
    component: str  # of the machine code that runs: for a Python program the interpreter's
    arguments: Sequence[str]
    seed: int
    limits: Mapping[str, int]  # the bounds that a guest can run into by itself
    parent: str = ""  # the instance that has started it, unless a client has


@attrs.frozen
class HostCalled(Event):
    """One host call of a recorded instance, told when it has ended; `at` is when it began."""

    instance: str
    number: int  # from 1
    function: str
    seconds: float
    arguments: Sequence[object] = ()
    reply: object = None
    error_kind: str = ""  # unless the call raised: then what, and its text
    error: str = ""
    level: Level = attrs.field(default="debug", init=False)
