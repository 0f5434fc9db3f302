"""What a guest may do, how it ends, and that its end leaves nothing behind."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import trio

from pie_trio.config import Limits
from pie_trio.errors import GuestFault, OutOfPages
from pie_trio.wasm.guest import open_guest, open_sandbox
from pie_trio.wasm.ticker import EpochSlices
from pie_trio.wasm.wasi import wasi_interfaces
from tests.guests import Deed, Probe, World, compiled, open_world

MIB = 1024 * 1024


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(params=[True, False], ids=["c", "python"])
async def world(artifacts: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with open_world(artifacts, in_c=request.param) as world:
        yield world


async def test_a_guest_that_does_nothing_ends_well(world: World) -> None:
    probe = await world.run(Probe(Deed.NOTHING))

    assert probe.parks == []


async def test_an_error_result_is_a_fault_with_the_guests_own_text(world: World) -> None:
    assert await world.fault_of(Probe(Deed.SAY_NO)) == "the guest says no"


@pytest.mark.parametrize(
    ("deed", "reason"),
    [
        (Deed.TRAP, "unreachable"),
        (Deed.READ_OUTSIDE, "out of bounds memory access"),
        (Deed.RECURSE_FOR_EVER, "call stack exhausted"),
        (Deed.CONNECT_OUT, "wasi:sockets/tcp"),
        (Deed.POLL_NOTHING, "wasi:io/poll#poll"),
        (Deed.EXIT_ERR, "error status"),
    ],
)
async def test_a_trap_is_a_fault_that_names_the_reason(
    world: World, deed: Deed, reason: str
) -> None:
    assert reason in (await world.fault_of(Probe(deed))).splitlines()[0]


STARTS_BADLY = """(component
  (import "wasi:cli/exit@0.2.7" (instance $exit
    (export "exit" (func (param "status" (result))))))
  (core func $exit (canon lower (func $exit "exit")))
  (core module $m
    (import "h" "exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (func $begin {begin})
    (start $begin)
    (func (export "run") (result i32) (i32.const 16)))
  (core instance $i (instantiate $m (with "h" (instance (export "exit" (func $exit))))))
  (alias core export $i "memory" (core memory $memory))
  (func $run (result (result (error string)))
    (canon lift (core func $i "run") (memory $memory)))
  (instance $interface (export "run" (func $run)))
  (export "inferlet:core/run" (instance $interface)))"""


@pytest.mark.parametrize(
    ("begin", "reason"),
    [
        ("(call $exit (i32.const 0))", "exited before"),
        ("(call $exit (i32.const 1))", "exited before"),
        ("unreachable", "unreachable"),
    ],
)
async def test_a_guest_that_ends_while_it_is_instantiated_is_at_fault(
    tmp_path: Path, begin: str, reason: str
) -> None:
    artifact = compiled(tmp_path, STARTS_BADLY.format(begin=begin), EpochSlices())
    async with open_sandbox(Limits()) as sandbox:
        program = sandbox.load(artifact, wasi_interfaces())
        with pytest.raises(GuestFault, match=reason):
            async with open_guest(
                program, None, memory_bytes=MIB, on_park=lambda: None, on_wake=lambda: None
            ):
                raise AssertionError("it was instantiated")
        assert sandbox.borders == {}


async def test_a_guest_that_spins_while_it_is_instantiated_can_be_cancelled(
    tmp_path: Path,
) -> None:
    text = STARTS_BADLY.format(begin="(loop $again (br $again))")
    artifact = compiled(tmp_path, text, EpochSlices())
    async with open_sandbox(Limits()) as sandbox:
        program = sandbox.load(artifact, wasi_interfaces())
        with trio.move_on_after(0.05) as scope:
            async with open_guest(
                program, None, memory_bytes=MIB, on_park=lambda: None, on_wake=lambda: None
            ):
                raise AssertionError("it was instantiated")
        assert scope.cancelled_caught
        assert sandbox.borders == {}


async def test_exit_with_an_ok_status_ends_the_guest_well(world: World) -> None:
    await world.run(Probe(Deed.EXIT_OK))


@pytest.mark.parametrize("deed", [Deed.FAIL, Deed.FAIL_LATER])
@pytest.mark.parametrize("error", [OutOfPages("none left"), ZeroDivisionError("a bug")])
async def test_what_a_host_function_raises_comes_out_as_itself(
    world: World, deed: Deed, error: Exception
) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        await world.run(Probe(deed, on_fail=fail))

    assert raised.value is error


@pytest.mark.parametrize("deed", [Deed.FAIL, Deed.FAIL_LATER])
async def test_a_keyboard_interrupt_in_a_host_function_comes_out_as_itself(
    world: World, deed: Deed
) -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await world.run(Probe(deed, on_fail=fail))


async def test_a_guest_cannot_grow_beyond_its_memory(world: World) -> None:
    probe = await world.run(Probe(Deed.GROW), memory_bytes=8 * MIB)

    assert probe.reports[0] * 65_536 <= 8 * MIB


async def test_a_guest_that_needs_more_memory_than_allowed_never_starts(world: World) -> None:
    with pytest.raises(GuestFault, match="memory"):
        await world.run(Probe(Deed.NOTHING), memory_bytes=1000)


async def test_a_list_within_the_bound_arrives_whole(world: World) -> None:
    probe = await world.run(Probe(Deed.PUT_BYTES, amount=MIB))

    assert probe.bytes_put == MIB


async def test_the_bound_is_for_each_call_not_for_all_of_them(artifacts: Path) -> None:
    probe = Probe(Deed.PUT_BYTES, amount=MIB // 48)
    limits = Limits(host_call_bytes=MIB)
    async with open_world(artifacts, limits=limits) as world, world.open(probe) as guest:
        for _ in range(3):
            await guest.run()


async def test_a_list_beyond_the_bound_is_refused_before_it_is_copied(artifacts: Path) -> None:
    async with open_world(artifacts, limits=Limits(host_call_bytes=MIB)) as world:
        reason = await world.fault_of(Probe(Deed.PUT_BYTES, amount=MIB // 32 + 1))

    assert f"more than {MIB} bytes" in reason


@pytest.mark.parametrize(
    "probe", [Probe(Deed.PUT_BYTES, amount=48 * MIB), Probe(Deed.PUT_ALIASED, amount=32_768)]
)
async def test_a_huge_list_costs_the_host_little_memory(world: World, probe: Probe) -> None:
    """48 MiB of bytes, or 1 GiB that is the same 32 KiB again and again."""
    process = psutil.Process()
    before = process.memory_info().rss

    await world.fault_of(probe)

    assert process.memory_info().rss - before < 400 * MIB


async def test_a_guest_cannot_hold_more_resources_than_allowed(artifacts: Path) -> None:
    async with open_world(artifacts, limits=Limits(resources_per_guest=100)) as world:
        probe = Probe(Deed.KEEP_THINGS, amount=1_000_000)
        reason = await world.fault_of(probe)

    assert "100 resources" in reason
    assert sorted(probe.closed) == sorted(probe.reports)


async def test_what_a_guest_drops_is_closed_at_once_and_frees_its_place(artifacts: Path) -> None:
    async with open_world(artifacts, limits=Limits(resources_per_guest=10)) as world:
        probe = await world.run(Probe(Deed.DROP_THINGS, amount=500))

    assert probe.closed == list(range(500, 0, -1))


async def test_what_a_guest_leaves_behind_is_closed_once_the_youngest_first(world: World) -> None:
    probe = Probe(Deed.KEEP_THINGS, amount=3)
    async with world.open(probe) as guest:
        await guest.run()
        assert probe.closed == []

    assert probe.reports == [3, 2, 1]
    assert probe.closed == [1, 2, 3]


async def test_a_guest_parks_and_wakes_once_for_each_wait(world: World) -> None:
    probe = await world.run(Probe(Deed.WAIT_TIMES, amount=3, wait_seconds=0.001))

    assert probe.parks == ["park", "wake"] * 3


async def test_a_host_call_that_ends_without_waiting_is_not_parking(world: World) -> None:
    probe = await world.run(Probe(Deed.SOON_TIMES, amount=1000))

    assert probe.soon_calls == 1000
    assert probe.parks == []


async def test_a_mere_checkpoint_is_not_parking(world: World) -> None:
    probe = await world.run(Probe(Deed.FAIL_LATER))

    assert probe.parks == []


@pytest.mark.parametrize("deed", [Deed.SPIN, Deed.SOON_FOR_EVER, Deed.WAIT_TIMES])
async def test_a_cancelled_guest_dies_soon_and_whatever_it_does(world: World, deed: Deed) -> None:
    with trio.move_on_after(0.05) as scope:
        await world.run(Probe(deed))

    assert scope.cancelled_caught
    assert trio.current_time() - scope.deadline < 0.1


async def test_cancellation_while_waiting_leaks_no_memory_and_no_objects(world: World) -> None:
    async def cancelled_while_waiting() -> None:
        probe = Probe(Deed.WAIT_TIMES)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.run, probe)
            await probe.waiting.wait()
            nursery.cancel_scope.cancel()

    async def cycles(count: int) -> int:
        for _ in range(count):
            await cancelled_while_waiting()
        gc.collect()
        resident: int = psutil.Process().memory_info().rss
        return resident

    before = await cycles(50)
    after = await cycles(400)

    assert after - before < 8 * MIB
    assert world.sandbox.borders == {}


async def test_a_second_call_while_one_runs_is_refused(world: World) -> None:
    probe = Probe(Deed.WAIT_TIMES)
    async with world.open(probe) as guest, trio.open_nursery() as nursery:
        nursery.start_soon(guest.run)
        await probe.waiting.wait()
        with pytest.raises(AssertionError, match="one call at a time"):
            await guest.run()
        nursery.cancel_scope.cancel()


async def test_a_guest_that_failed_runs_no_second_call(world: World) -> None:
    async with world.open(Probe(Deed.TRAP)) as guest:
        with pytest.raises(GuestFault, match="unreachable"):
            await guest.run()
        with pytest.raises(GuestFault, match="cannot enter component instance"):
            await guest.run()


async def test_loading_the_same_file_twice_gives_the_same_program(world: World) -> None:
    assert world.sandbox.load(world.artifact, {}) is world.program
