"""Who runs when: busy guests share, waiting guests keep their pace, counted slices repeat."""

from __future__ import annotations

import ctypes
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import trio
from trio._core import _run as trio_run
from trio.testing import MockClock

from pie_trio.wasm import abi
from pie_trio.wasm.border import Border, PendingCall, no_answer
from pie_trio.wasm.fiber import Fiber, Turns
from pie_trio.wasm.resources import HandleTable
from pie_trio.wasm.ticker import FuelSlices, Slicer
from tests.guests import Deed, Probe, World, open_world


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts")


async def _latencies(seconds: float) -> list[float]:
    """How late a one-millisecond sleep is, again and again."""
    late = []
    end = trio.current_time() + seconds
    while (began := time.perf_counter()) and trio.current_time() < end:
        await trio.sleep(0.001)
        late.append(time.perf_counter() - began - 0.001)
    return late


@pytest.mark.parametrize("deed", [Deed.SPIN, Deed.SOON_FOR_EVER, Deed.POLL_UNTIL_READY])
@pytest.mark.parametrize("count", [1, 20])
async def test_busy_guests_hold_up_the_event_loop_for_a_slice_at_most(
    artifacts: Path, deed: Deed, count: int
) -> None:
    """A slice is about 1 ms. The median is bounded, not the maximum: the machine is shared."""
    async with open_world(artifacts) as world, trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(world.run, Probe(deed))
        await trio.sleep(0.05)
        late = await _latencies(0.3)
        nursery.cancel_scope.cancel()

    assert statistics.median(late) < 0.01


async def test_a_guest_whose_host_calls_are_slow_is_cut_off_after_a_slice_too(
    artifacts: Path,
) -> None:
    async with open_world(artifacts) as world, trio.open_nursery() as nursery:
        nursery.start_soon(world.run, Probe(Deed.SOON_FOR_EVER, soon_seconds=0.0005))
        await trio.sleep(0.05)
        late = await _latencies(0.3)
        nursery.cancel_scope.cancel()

    assert statistics.median(late) < 0.005


async def test_a_guest_that_mostly_waits_keeps_its_pace_beside_spinning_ones(
    artifacts: Path,
) -> None:
    async with open_world(artifacts) as world:
        alone = await _waits_done(world, 0.3)
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(world.run, Probe(Deed.SPIN))
            beside = await _waits_done(world, 0.3)
            nursery.cancel_scope.cancel()

    assert beside > alone / 4


async def _waits_done(world: World, seconds: float) -> int:
    probe = Probe(Deed.WAIT_TIMES, amount=1_000_000, wait_seconds=0.002)
    with trio.move_on_after(seconds):
        await world.run(probe)
    return len(probe.reports)


@attrs.frozen
class CountedSlicer:
    """Counts, for each guest, how often it was let run."""

    slicer: Slicer
    times: Counter[int] = attrs.field(factory=Counter)

    @property
    def seconds(self) -> float:
        return self.slicer.seconds

    def poll(self, context: int, future: int) -> bool:
        self.times[context] += 1
        return self.slicer.poll(context, future)


@pytest.mark.parametrize("in_c", [True, False])
async def test_a_guest_that_wakes_is_not_stopped_for_slices_that_ended_while_it_waited(
    artifacts: Path, in_c: bool
) -> None:
    waits = 40
    async with open_world(artifacts, in_c=in_c) as world, trio.open_nursery() as nursery:
        turns = world.sandbox.turns
        assert turns.ticker is not None, "these slices are made of time"
        counted = turns.ticker = CountedSlicer(turns.ticker)
        nursery.start_soon(world.run, Probe(Deed.SPIN))  # so that slices begin and end
        async with world.open(Probe(Deed.WAIT_TIMES, amount=waits, wait_seconds=0.005)) as guest:
            await guest.run()
            times = counted.times[guest.border.handles.context]
        nursery.cancel_scope.cancel()

    assert waits < times < 1.5 * waits


SLICE_SECONDS = 0.05  # so long that a busy machine does not use up two of them in one
WAITER = 0


async def _host_call() -> None:
    await trio.sleep(8 * SLICE_SECONDS)


@attrs.frozen
class PretendGuests:
    """Number 0 waits long, needs a slice and a bit, and ends; the others never end."""

    borders: list[Border]
    order: list[int] = attrs.field(factory=list)

    @property
    def seconds(self) -> float:
        return SLICE_SECONDS

    def poll(self, guest: int, _future: int) -> bool:
        self.order.append(guest)
        border, round_ = self.borders[guest], self.order.count(guest)
        if guest == WAITER and round_ != 2:
            if round_ == 1:
                waiting = _host_call()
                border.pending = PendingCall(waiting, waiting.send(None), no_answer, 0)
            return round_ == 3
        time.sleep(SLICE_SECONDS)
        return False


@pytest.fixture
def deleted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The calls that were deleted; there is no wasm in these tests."""
    found: list[int] = []
    monkeypatch.setattr(abi, "future_delete", found.append)
    return found


def _driven(count: int, on_slice: Callable[[], None]) -> tuple[PretendGuests, list[Fiber]]:
    flags = [ctypes.create_string_buffer(1) for _ in range(count)]
    tables = [HandleTable(number, 1, 1) for number in range(count)]
    borders = [Border(None, table, b"", flag) for table, flag in zip(tables, flags, strict=True)]
    guests = PretendGuests(borders)
    turns, idle = Turns(guests), lambda: None
    return guests, [Fiber(each, turns, idle, idle, on_slice) for each in borders]


async def test_a_guest_that_mostly_waits_goes_on_after_a_slice_before_the_busy_ones(
    deleted: list[int],
) -> None:
    guests, fibers = _driven(5, lambda: None)
    async with trio.open_nursery() as nursery:
        for fiber in fibers[1:]:
            nursery.start_soon(fiber.drive, 0)
        await fibers[WAITER].drive(7)
        nursery.cancel_scope.cancel()

    _, second, third = (place for place, guest in enumerate(guests.order) if guest == WAITER)
    between = guests.order[second + 1 : third]
    assert len(between) <= 1, "the busy ones have a turn each, it had none of those"
    assert deleted == [7, 0, 0, 0, 0]


async def test_a_guest_that_is_cancelled_between_two_such_slices_is_gone(
    deleted: list[int],
) -> None:
    with trio.CancelScope() as scope:
        guests, (fiber,) = _driven(1, scope.cancel)
        await fiber.drive(7)

    assert scope.cancelled_caught
    assert (guests.order, deleted) == ([WAITER, WAITER], [7])
    assert not fiber.turns.queue.locked()


IDLE_SECONDS = 0.2  # far longer than a ticker stays awake without a running guest


@pytest.mark.parametrize("in_c", [True, False])
async def test_a_guest_that_spins_after_an_idle_time_can_be_cancelled(
    artifacts: Path, in_c: bool
) -> None:
    async with open_world(artifacts, in_c=in_c) as world:
        for _ in range(3):
            await trio.sleep(IDLE_SECONDS)
            with trio.move_on_after(0.02) as scope:
                await world.run(Probe(Deed.SPIN))
            assert scope.cancelled_caught


async def test_busy_guests_get_equal_shares(artifacts: Path) -> None:
    probes = [Probe(Deed.SOON_FOR_EVER) for _ in range(4)]
    async with open_world(artifacts) as world, trio.open_nursery() as nursery:
        for probe in probes:
            nursery.start_soon(world.run, probe)
        await trio.sleep(0.5)
        nursery.cancel_scope.cancel()

    counts = [probe.soon_calls for probe in probes]
    assert min(counts) > max(counts) / 3


async def _trace(world: World) -> list[str]:
    """In which order two busy guests and a bystander get their turns."""
    trace: list[str] = []

    async def run(name: str, amount: int) -> None:
        await world.run(Probe(Deed.COUNT, amount=amount))
        trace.append(name)

    async def watch() -> None:
        while len(trace) < 2 or not {"short", "long"} <= set(trace):
            await trio.lowlevel.checkpoint()
            trace.append("turn")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        nursery.start_soon(run, "short", 500_000)
        nursery.start_soon(run, "long", 1_000_000)
    return trace


async def test_counted_slices_give_the_same_trace_in_every_run(
    artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trio's own order is fixed too, as the simulation harness does it."""
    monkeypatch.setattr(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    traces = []
    async with open_world(artifacts, slicing=FuelSlices(instructions=100_000)) as world:
        for _ in range(3):
            trio_run._r.seed(7)
            traces.append(await _trace(world))

    assert len(traces[0]) > 10
    assert traces[0] == traces[1] == traces[2]


async def test_a_guest_that_calls_busily_leaves_gaps_with_counted_slices(artifacts: Path) -> None:
    """Even if its slice, in instructions, lasts for a minute."""
    async with open_world(artifacts, slicing=FuelSlices(instructions=10**8)) as world:
        with trio.move_on_after(0.05) as scope:
            await world.run(Probe(Deed.SOON_FOR_EVER))

    assert scope.cancelled_caught
    assert trio.current_time() - scope.deadline < 0.5


async def test_a_guests_wait_takes_virtual_time_only(
    artifacts: Path, autojump_clock: MockClock
) -> None:
    began = time.perf_counter()
    async with open_world(artifacts, slicing=FuelSlices()) as world:
        await world.run(Probe(Deed.WAIT_TIMES, amount=3, wait_seconds=1000))

    assert trio.current_time() == pytest.approx(3000)
    assert time.perf_counter() - began < 30
