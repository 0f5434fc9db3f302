"""Small guests in WebAssembly text, the host they talk to, and the way from text to a program.

`probe.wat` does one deed per run, chosen by number; `Probe` is its host and notes what it reported.
Nothing here outlives the test that uses it, and nothing compiles in a process of its own.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import IntEnum
from pathlib import Path
from random import Random
from typing import Any

import attrs
import trio
from wasmtime import wat2wasm

from pie_trio.config import Limits
from pie_trio.errors import GuestFault
from pie_trio.home import Home
from pie_trio.wasm.compile_child import compile_to
from pie_trio.wasm.guest import Guest, Program, Sandbox, open_guest, open_sandbox
from pie_trio.wasm.linker import HostInterfaces
from pie_trio.wasm.native import Native, open_native
from pie_trio.wasm.settings import fingerprint
from pie_trio.wasm.ticker import EpochSlices, Slicing
from pie_trio.wasm.wasi import wasi_interfaces
from pie_trio.wasm.wasi.poll import EventPollable
from pie_trio.wasm.wasi.state import WasiState

HERE = Path(__file__).parent
MEMORY_BYTES = 64 * 1024 * 1024


class Deed(IntEnum):
    """What the probe can do, in the order of its table."""

    NOTHING = 0
    SPIN = 1
    COUNT = 2
    TRAP = 3
    READ_OUTSIDE = 4
    RECURSE_FOR_EVER = 5
    GROW = 6
    PUT_BYTES = 7
    PUT_ALIASED = 8
    KEEP_THINGS = 9
    DROP_THINGS = 10
    WAIT_TIMES = 11
    SOON_FOR_EVER = 12
    POLL_EVENTS = 13
    POLL_NOTHING = 14
    POLL_TWICE_THE_SAME = 15
    POLL_UNTIL_READY = 16
    EXIT_OK = 17
    EXIT_ERR = 18
    CONNECT_OUT = 19
    SAY_NO = 20
    FAIL = 21
    FAIL_LATER = 22
    SOON_TIMES = 23


@attrs.define(eq=False)
class Thing:
    """A host object that counts how often it was closed."""

    number: int
    probe: Probe

    def close(self) -> None:
        self.probe.closed.append(self.number)


async def _swallow(_data: bytes) -> None:
    """A sink that keeps nothing."""


@attrs.define(eq=False)
class Probe:
    """The probe's host: what it shall do, and what it told."""

    deed: Deed
    amount: int = 1
    on_fail: Callable[[], Any] = lambda: None
    reports: list[int] = attrs.field(factory=list)
    closed: list[int] = attrs.field(factory=list)
    bytes_put: int = 0
    soon_calls: int = 0
    soon_seconds: float = 0.0
    waiting: trio.Event = attrs.field(factory=trio.Event)
    parks: list[str] = attrs.field(factory=list)
    events: list[EventPollable] = attrs.field(factory=list)
    wait_seconds: float | None = None  # None: for ever
    wasi: WasiState = attrs.field(factory=lambda: WasiState(_swallow, _swallow, Random(1), float))

    def event(self, number: int) -> EventPollable:
        while len(self.events) <= number:
            self.events.append(EventPollable())
        return self.events[number]


async def _wait(probe: Probe) -> None:
    probe.waiting.set()
    if probe.wait_seconds is None:
        await trio.sleep_forever()
    else:
        await trio.sleep(probe.wait_seconds)


async def _soon(probe: Probe) -> None:
    """Never waits, but may keep the processor busy."""
    probe.soon_calls += 1
    end = time.perf_counter() + probe.soon_seconds
    while time.perf_counter() < end:
        pass


async def _fail_later(probe: Probe) -> None:
    await trio.lowlevel.checkpoint()
    probe.on_fail()


def _put(probe: Probe, data: bytes) -> None:
    probe.bytes_put = len(data)


def _put_many(probe: Probe, data: list[bytes]) -> None:
    probe.bytes_put = sum(map(len, data))


def probe_interfaces() -> HostInterfaces:
    """What the probe imports."""
    return {
        **wasi_interfaces(),
        "test:host/probe": {
            "[constructor]thing": lambda probe, number: Thing(number, probe),
            "[method]thing.number": lambda _probe, thing: thing.number,
            "deed": lambda probe: probe.deed,
            "amount": lambda probe: probe.amount,
            "report": lambda probe, number: probe.reports.append(number),
            "wait": _wait,
            "soon": _soon,
            "fail": lambda probe: probe.on_fail(),
            "fail-later": _fail_later,
            "put": _put,
            "put-many": _put_many,
            "event": Probe.event,
        },
    }


def compiled(directory: Path, text: str, slicing: Slicing) -> Path:
    """Compile WebAssembly text in this process; an interrupt leaves no half of a file."""
    artifact = directory / f"{abs(hash(text))}-{fingerprint(slicing)}.cwasm"
    if not artifact.exists():
        half = artifact.with_suffix(".half")
        compile_to(half, bytes(wat2wasm(text)), slicing)
        half.replace(artifact)
    return artifact


@attrs.frozen(eq=False)
class World:
    """A sandbox with the probe loaded."""

    sandbox: Sandbox
    program: Program
    artifact: Path

    @asynccontextmanager
    async def open(self, probe: Probe, memory_bytes: int = MEMORY_BYTES) -> AsyncIterator[Guest]:
        async with open_guest(
            self.program,
            probe,
            memory_bytes=memory_bytes,
            on_park=lambda: probe.parks.append("park"),
            on_wake=lambda: probe.parks.append("wake"),
        ) as guest:
            yield guest

    async def run(self, probe: Probe, memory_bytes: int = MEMORY_BYTES) -> Probe:
        async with self.open(probe, memory_bytes) as guest:
            await guest.run()
        return probe

    async def fault_of(self, probe: Probe) -> str:
        """The reason of the fault that the probe must end with."""
        try:
            await self.run(probe)
        except GuestFault as fault:
            return str(fault)
        raise AssertionError(f"{probe.deed.name} was no fault")


def compiled_border() -> Native:
    """That of this machine: without a compiler these tests say nothing."""
    said: list[str] = []
    native = open_native(Home.default().native, said.append)
    assert native is not None, said
    return native


@asynccontextmanager
async def open_world(
    directory: Path,
    *,
    slicing: Slicing | None = None,
    limits: Limits | None = None,
    in_c: bool = True,
) -> AsyncIterator[World]:
    """A sandbox for probes, with the compiled border or the one in Python."""
    native = compiled_border() if in_c else None
    slicing = EpochSlices() if slicing is None else slicing
    text = (HERE / "probe.wat").read_text()
    artifact = compiled(directory, text, slicing)
    async with open_sandbox(limits or Limits(), slicing=slicing, native=native) as sandbox:
        yield World(sandbox, sandbox.load(artifact, probe_interfaces()), artifact)
