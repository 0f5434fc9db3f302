"""No worker can stop the engine: whatever it does ends its generation by name, in bounded time.

The workers are processes: the pretend one, stopped or killed, and one that does one thing wrong.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import psutil
import pytest
import trio

from gpu_worker import wire
from pie_trio.config import Limits, ModelSettings
from pie_trio.errors import WorkerLost
from pie_trio.events import BatchDispatched, BatchSettled, Event, WorkerDied, WorkerStarted
from pie_trio.messages import InstanceEnded
from pie_trio.ports import Ports, RandomStreams
from pie_trio.services.model_store import pretend_model
from pie_trio.services.worker_link import WorkerLauncher, WorkerLink, WorkerSpec, open_local_worker
from pie_trio.testing.inline_worker import WorkerScript
from tests.support import broken_worker
from tests.support.broken_worker import BAD_HELLOS, BAD_RESULTS
from tests.world import World, open_world

LIMITS = Limits(
    worker_restart_backoff_seconds=0.01,
    worker_restarts_max=0,
    worker_start_seconds=20.0,
    heartbeat_seconds=0.2,
    heartbeat_lost_seconds=3.0,
    grace_seconds=0.5,
)
PROMPT = ("--prompt", "hello", "--max-tokens", "12")


def broken(fault: str) -> WorkerLauncher:
    """Workers with one fault."""

    def command(_spec: WorkerSpec, generation: int, endpoint: str) -> list[str]:
        module = [sys.executable, "-m", broken_worker.__name__]
        return [*module, "--endpoint", endpoint, "--generation", str(generation), fault]

    return partial(open_local_worker, command=command)


@asynccontextmanager
async def open_engine_with(
    root: Path, launcher: WorkerLauncher, limits: Limits = LIMITS, step_seconds: float = 0.0
) -> AsyncIterator[World]:
    """A world whose worker may be gone at its end, which has no books then."""
    with trio.fail_after(30):
        async with open_world(
            root,
            launcher=launcher,
            limits=limits,
            script=WorkerScript(step_seconds=step_seconds),
            checks_books=False,
        ) as world:
            yield world


def worker_of(world: World) -> psutil.Process:
    started = [event for event in world.events if isinstance(event, WorkerStarted)]
    return psutil.Process(started[-1].process)


def reasons(world: World) -> list[str]:
    return [event.reason for event in world.events if isinstance(event, WorkerDied)]


async def until(world: World, kind: type[Event]) -> None:
    with trio.fail_after(20):
        while not any(isinstance(event, kind) for event in world.events):  # noqa: ASYNC110
            await trio.sleep(0.01)


async def until_died(world: World) -> str:
    await until(world, WorkerDied)
    return reasons(world)[0]


async def run_until_lost(world: World) -> InstanceEnded:
    end = await world.run("text-completion", *PROMPT)
    assert end.error_kind == "WorkerLost", end.error
    return end


async def fails_to_start(root: Path, launcher: WorkerLauncher, limits: Limits = LIMITS) -> str:
    """The reason why an engine with these workers does not start."""
    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_engine_with(root, launcher, limits):
            pass
    assert caught.group_contains(WorkerLost)
    leaves = list[BaseException]()
    todo: list[BaseException] = [caught.value]
    while todo:
        error = todo.pop()
        todo += error.exceptions if isinstance(error, BaseExceptionGroup) else []
        leaves += [] if isinstance(error, BaseExceptionGroup) else [error]
    return "; ".join(map(str, leaves))


# --- workers that hang


async def test_a_stopped_worker_is_lost_after_so_much_silence(tmp_path: Path) -> None:
    async with open_engine_with(tmp_path, open_local_worker, step_seconds=0.05) as world:
        process = worker_of(world)
        process.send_signal(signal.SIGSTOP)
        began = trio.current_time()
        end = await run_until_lost(world)
        assert "no heartbeat for" in (end.error or "")
        assert 2.0 < trio.current_time() - began < 8.0
        await until_died(world)
    assert not process.is_running()


async def test_a_worker_without_heartbeats_is_lost_though_it_answers(tmp_path: Path) -> None:
    async with open_engine_with(tmp_path, broken("no heartbeat")) as world:
        assert (await world.run("text-completion", *PROMPT)).error is None
        assert "no heartbeat for" in await until_died(world)


async def test_a_batch_that_never_ends_is_bounded(tmp_path: Path) -> None:
    limits = attrs.evolve(LIMITS, batch_seconds_max=1.0)
    async with open_engine_with(tmp_path, broken("never answers"), limits) as world:
        end = await run_until_lost(world)
        assert "a batch takes longer than 1 s" in (end.error or "")


async def test_a_batch_that_is_told_in_parts_may_take_as_long_as_it_likes(tmp_path: Path) -> None:
    limits = attrs.evolve(LIMITS, batch_seconds_max=1.0, decode_chunk_tokens=4)
    async with open_engine_with(tmp_path, open_local_worker, limits, step_seconds=0.1) as world:
        end = await world.run("text-completion", "--prompt", "hello", "--max-tokens", "30")
        settled = [event for event in world.events if isinstance(event, BatchSettled)]
        assert max(event.seconds for event in settled) > 2.0
        assert end.error is None


async def test_an_engine_that_stood_still_itself_does_not_blame_the_worker(tmp_path: Path) -> None:
    """As with Ctrl-Z and fg: what piled up is read before anybody is called silent."""
    limits = attrs.evolve(LIMITS, batch_seconds_max=2.0)
    async with open_engine_with(tmp_path, open_local_worker, limits, step_seconds=0.1) as world:
        instance = await world.launch("text-completion", *PROMPT)
        await until(world, BatchDispatched)
        time.sleep(4)  # noqa: ASYNC251
        assert (await instance.ended.answer()).error is None
        assert (await world.run("text-completion", *PROMPT)).error is None
        assert reasons(world) == []


# --- workers that do not start


async def test_a_worker_that_never_joins_is_given_up(tmp_path: Path) -> None:
    limits = attrs.evolve(LIMITS, worker_start_seconds=1.0)
    reason = await fails_to_start(tmp_path, broken("never joins"), limits)
    assert "not ready within worker_start_seconds = 1 s" in reason


async def test_a_worker_may_be_silent_while_it_starts(tmp_path: Path) -> None:
    """Importing and loading may hold every thread of it for long."""
    limits = attrs.evolve(LIMITS, worker_start_seconds=3.0, heartbeat_lost_seconds=0.5)
    reason = await fails_to_start(tmp_path, broken("never joins"), limits)
    assert "worker_start_seconds" in reason


async def test_a_worker_that_dies_in_the_handshake_tells_its_last_words(tmp_path: Path) -> None:
    reason = await fails_to_start(tmp_path, broken("dies in the handshake"))
    assert "gone with status 3: no such device" in reason


async def test_a_program_that_is_not_there_is_a_lost_worker(tmp_path: Path) -> None:
    def command(_spec: WorkerSpec, _generation: int, _endpoint: str) -> list[str]:
        return [str(tmp_path / "nothing here")]

    reason = await fails_to_start(tmp_path, partial(open_local_worker, command=command))
    assert "cannot be started" in reason


@pytest.mark.parametrize("fault", [*BAD_HELLOS, "joins with another protocol"])
async def test_a_greeting_that_cannot_be_is_refused(tmp_path: Path, fault: str) -> None:
    reason = await fails_to_start(tmp_path, broken(fault))
    assert "it says that it" in reason or "protocol" in reason


@pytest.mark.parametrize("fault", ["garbage", "speaks for the engine"])
async def test_nonsense_ends_the_generation(tmp_path: Path, fault: str) -> None:
    reason = await fails_to_start(tmp_path, broken(fault))
    assert "it sent a" in reason


# --- workers that answer nonsense


@pytest.mark.parametrize("fault", BAD_RESULTS)
async def test_an_answer_that_does_not_fit_its_batch_ends_the_generation(
    tmp_path: Path, fault: str
) -> None:
    async with open_engine_with(tmp_path, broken(fault)) as world:
        end = await run_until_lost(world)
        assert "it answered" in (end.error or "")


async def test_stale_and_double_answers_are_dropped(tmp_path: Path) -> None:
    async with open_engine_with(tmp_path / "a", open_local_worker) as world:
        expected = await world.run("text-completion", *PROMPT)
    async with open_engine_with(tmp_path / "b", broken("stale and double answers")) as world:
        end = await world.run("text-completion", *PROMPT)
        assert (end.value, end.error) == (expected.value, None)


async def test_every_execute_raises_when_the_worker_is_lost(tmp_path: Path) -> None:
    model = ModelSettings("pretend", pretend=True, pretend_step_seconds=60.0, pages_max=8)
    spec = WorkerSpec(model, pretend_model().path, LIMITS, Ports(RandomStreams(1)))
    row = wire.OutputRow(0, wire.SamplerKind.MULTINOMIAL, 0.0)
    request = wire.Request((65,), (0,), (0,), 1, None, (row,), (), 1)
    reasons: list[str] = []

    async def execute(link: WorkerLink, number: int) -> None:
        with pytest.raises(WorkerLost) as caught:
            await link.execute(wire.Batch(1, number, (), (request,)))
        reasons.append(str(caught.value))

    with trio.fail_after(20):
        async with open_local_worker(spec, 1) as link:
            hello = await link.wait_ready()
            assert isinstance(hello, wire.Hello)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(execute, link, 1)
                await trio.testing.wait_all_tasks_blocked()
                psutil.Process(hello.pid).kill()
            await execute(link, 2)
    assert len(reasons) == 2
    assert all("killed by signal 9" in reason for reason in reasons)


# --- the end


async def test_a_worker_that_will_not_be_drained_is_killed_after_the_grace_time(
    tmp_path: Path,
) -> None:
    async with open_engine_with(tmp_path, broken("will not be drained")) as world:
        process = worker_of(world)
        began = trio.current_time()
    assert trio.current_time() - began < 5.0
    assert not process.is_running()


async def test_a_stopped_worker_does_not_hold_up_the_shutdown(tmp_path: Path) -> None:
    async with open_engine_with(tmp_path, open_local_worker) as world:
        process = worker_of(world)
        process.send_signal(signal.SIGSTOP)
        began = trio.current_time()
    assert trio.current_time() - began < 5.0
    assert not process.is_running()


async def test_a_shutdown_in_the_middle_of_a_batch_does_not_wait_for_it(tmp_path: Path) -> None:
    limits = attrs.evolve(LIMITS, grace_seconds=20.0)
    async with open_engine_with(tmp_path, open_local_worker, limits, step_seconds=60.0) as world:
        process = worker_of(world)
        instance = await world.launch("text-completion", *PROMPT)
        await until(world, BatchDispatched)
        instance.terminate()
        await instance.ended.wait()
        began = trio.current_time()
    assert trio.current_time() - began < 5.0
    assert not process.is_running()
