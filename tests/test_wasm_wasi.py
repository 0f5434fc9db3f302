"""Our WASI: what a guest can wait for, and the little of the outside that it sees."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pie_trio.config import Limits
from pie_trio.errors import GuestFault
from pie_trio.wasm.codec import Case, Err
from pie_trio.wasm.faults import GuestExit
from pie_trio.wasm.signatures import read_contract
from pie_trio.wasm.wasi import WasiState, wasi_interfaces
from pie_trio.wasm.wasi.poll import Deadline, EventPollable, Pollable, Ready, wait_for_any
from tests.guests import Deed, Probe, World, open_world


@attrs.define(eq=False)
class Host:
    """A host object as WASI sees it."""

    wasi: WasiState
    out: list[bytes]


def _host(seed: int = 1, limits: Limits | None = None) -> Host:
    out: list[bytes] = []

    async def write(data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        out.append(data)

    return Host(WasiState(write, write, Random(seed), lambda: 12.5, limits or Limits()), out)


def _function(interface: str, name: str) -> Callable[..., Any]:
    return wasi_interfaces()[interface][name]


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture
async def world(artifacts: Path) -> AsyncIterator[World]:
    async with open_world(artifacts) as world:
        yield world


def test_every_wasi_function_has_its_signature_in_the_contract() -> None:
    promised = read_contract()
    provided = {f"{name}#{f}" for name, functions in wasi_interfaces().items() for f in functions}

    assert provided == {name for name in promised if name.startswith("wasi:")}


# Polling


async def test_a_poll_wakes_with_the_places_of_all_that_are_ready(world: World) -> None:
    probe = Probe(Deed.POLL_EVENTS, amount=5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, probe)
        await wait_all_tasks_blocked()
        assert probe.reports == []
        probe.events[3].event.set()
        probe.events[1].event.set()

    assert sorted(probe.reports) == [1, 3]


async def test_a_poll_of_something_ready_does_not_wait(world: World) -> None:
    probe = Probe(Deed.POLL_EVENTS, amount=5)
    probe.event(2).event.set()

    await world.run(probe)

    assert probe.reports == [2]
    assert probe.parks == []


async def test_a_poll_may_name_the_same_pollable_twice(world: World) -> None:
    probe = Probe(Deed.POLL_TWICE_THE_SAME)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, probe)
        await wait_all_tasks_blocked()
        probe.events[0].event.set()

    assert probe.reports == [2]


async def test_a_guest_that_polls_busily_leaves_room_for_what_it_waits_for(world: World) -> None:
    probe = Probe(Deed.POLL_UNTIL_READY)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.run, probe)
            while not probe.events:
                await trio.lowlevel.checkpoint()
            probe.events[0].event.set()


async def test_the_earliest_deadline_ends_a_wait(autojump_clock: MockClock) -> None:
    pollables: list[Pollable] = [Deadline(50.0), EventPollable(), Deadline(20.0), EventPollable()]

    assert await wait_for_any(pollables) == [2]
    assert trio.current_time() == 20.0


async def test_a_wait_for_deadlines_alone_ends_with_the_first(autojump_clock: MockClock) -> None:
    assert await wait_for_any([Deadline(5.0), Deadline(5.0), Deadline(6.0)]) == [0, 1]


async def test_an_event_before_the_deadline_ends_a_wait(autojump_clock: MockClock) -> None:
    event = EventPollable()
    async with trio.open_nursery() as nursery:

        async def set_later() -> None:
            await trio.sleep(3)
            event.event.set()

        nursery.start_soon(set_later)
        assert await wait_for_any([Deadline(20.0), event]) == [1]

    assert trio.current_time() == 3.0


@attrs.define(eq=False)
class Fickle:
    """Wakes its waiters without being ready, once."""

    wakes: int = 0

    def ready(self) -> bool:
        return self.wakes > 1

    async def wait(self) -> None:
        await trio.lowlevel.checkpoint()
        self.wakes += 1


@pytest.mark.parametrize("others", [[], [EventPollable(), EventPollable()]])
async def test_a_wait_that_ends_for_nothing_is_taken_up_again(others: list[EventPollable]) -> None:
    assert await wait_for_any([Fickle(), *others]) == [0]


async def test_a_cancelled_wait_leaves_no_task(autojump_clock: MockClock) -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    with trio.move_on_after(1):
        await wait_for_any([EventPollable(), EventPollable(), EventPollable()])

    assert trio.lowlevel.current_statistics().tasks_living == before


# Clocks, random numbers, streams, exit


async def test_the_monotonic_clock_is_trios(autojump_clock: MockClock) -> None:
    now = _function("wasi:clocks/monotonic-clock", "now")
    after = _function("wasi:clocks/monotonic-clock", "subscribe-duration")
    at = _function("wasi:clocks/monotonic-clock", "subscribe-instant")

    began = now(None)
    await after(None, 2_000_000_000).wait()
    assert now(None) - began == 2_000_000_000
    await at(None, now(None) + 1_000_000_000).wait()
    assert now(None) - began == 3_000_000_000


def test_the_wall_clock_is_the_one_that_was_handed_in() -> None:
    now = _function("wasi:clocks/wall-clock", "now")

    assert now(_host()) == {"seconds": 12, "nanoseconds": 500_000_000}


def test_random_numbers_follow_the_seed() -> None:
    draw = _function("wasi:random/random", "get-random-bytes")

    assert draw(_host(seed=1), 16) == draw(_host(seed=1), 16)
    assert draw(_host(seed=1), 16) != draw(_host(seed=2), 16)


@pytest.mark.parametrize("length", [101, 2**63])
def test_too_many_random_bytes_are_refused_before_they_are_drawn(length: int) -> None:
    draw = _function("wasi:random/random", "get-random-bytes")

    with pytest.raises(GuestFault, match="at most 100"):
        draw(_host(limits=Limits(wasi_random_bytes=100)), length)


async def test_what_is_written_has_reached_the_sink_when_the_call_returns() -> None:
    host = _host()
    stream = _function("wasi:cli/stdout", "get-stdout")(host)

    await _function("wasi:io/streams", "[method]output-stream.write")(host, stream, b"text")

    assert host.out == [b"text"]


async def test_a_write_beyond_what_was_permitted_is_a_fault() -> None:
    host = _host()
    stream = _function("wasi:cli/stderr", "get-stderr")(host)
    permitted = _function("wasi:io/streams", "[method]output-stream.check-write")(host, stream)

    with pytest.raises(GuestFault, match="permitted"):
        await _function("wasi:io/streams", "[method]output-stream.write")(
            host, stream, bytes(permitted + 1)
        )
    assert host.out == []


@pytest.mark.parametrize("name", ["read", "blocking-read", "skip", "blocking-skip"])
def test_standard_input_is_at_its_end(name: str) -> None:
    host = _host()
    stream = _function("wasi:cli/stdin", "get-stdin")(host)

    answer = _function("wasi:io/streams", f"[method]input-stream.{name}")(host, stream, 10)

    assert answer == Err(Case("closed"))


@pytest.mark.parametrize(("status", "ok"), [(None, True), (Err(), False)])
def test_exit_says_whether_it_was_meant_well(status: Any, ok: bool) -> None:
    with pytest.raises(GuestExit) as raised:
        _function("wasi:cli/exit", "exit")(_host(), status)

    assert raised.value.ok is ok


@pytest.mark.parametrize(
    ("interface", "name"),
    [
        ("wasi:cli/environment", "get-environment"),
        ("wasi:cli/environment", "get-arguments"),
        ("wasi:filesystem/preopens", "get-directories"),
    ],
)
def test_a_guest_sees_nothing_of_the_machine(interface: str, name: str) -> None:
    assert _function(interface, name)(_host()) == []


async def test_ready_is_always_ready() -> None:
    assert await wait_for_any([EventPollable(), Ready()]) == [1]
