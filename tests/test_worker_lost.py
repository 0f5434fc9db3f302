"""Must hold: a worker that dies ends its generation, by name, at once, and nothing else."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import trio

from pie_trio.config import Limits, ModelSettings, Settings
from pie_trio.engine import Engine, open_engine
from pie_trio.errors import WorkerLost
from pie_trio.events import (
    BatchDispatched,
    Event,
    InstanceFinished,
    WorkerDied,
    WorkerStarted,
)
from pie_trio.messages import InstanceEnded
from pie_trio.ports import Ports, RandomStreams
from pie_trio.services.model_store import DEFAULT_MODEL
from pie_trio.services.worker_link import open_local_worker
from pie_trio.testing.inline_worker import WorkerScript
from tests.world import open_world, read_all, shared_home

INSTANCES = 64
QUICK = Limits(  # steps of any length, so that all prompts are read before the first guest ends
    worker_restart_backoff_seconds=0.01, batch_tokens_unmeasured=2048, step_seconds_max=60.0
)


def workers(events: list[Event]) -> list[WorkerStarted]:
    return [event for event in events if isinstance(event, WorkerStarted)]


async def until(events: list[Event], kind: type[Event], count: int) -> list[Event]:
    """Waits until so many events of a kind were emitted."""
    with trio.fail_after(60):
        while len(found := [e for e in events if isinstance(e, kind)]) < count:  # noqa: ASYNC110
            await trio.sleep(0.002)
    return found


def is_full(event: Event, model: str) -> bool:
    """Whether this is a batch of every instance."""
    is_batch = isinstance(event, BatchDispatched) and event.model == model
    return is_batch and event.passes == INSTANCES


async def run_until_killed(
    engine: Engine, events: list[Event], model: str, tokens: int
) -> tuple[list[InstanceEnded], float]:
    """Launches, kills the worker in the middle of a batch; how all ended, and when it was told."""
    record = engine.programs.find("text-completion")
    assert record is not None
    ends: list[InstanceEnded] = []

    async def run_one(number: int) -> None:
        arguments = (
            "--model",
            model,
            "--prompt",
            f"Count to {number}",
            "--max-tokens",
            str(tokens),
        )
        instance = await engine.launch(record, arguments, user="tester")
        await read_all(instance)
        ends.append(await instance.ended.answer())

    before = len(events)
    deaths = len([e for e in events if isinstance(e, WorkerDied)])
    async with trio.open_nursery() as nursery:
        for number in range(INSTANCES):
            nursery.start_soon(run_one, number)
        with trio.fail_after(60):
            while not any(is_full(e, model) for e in events[before:]):  # noqa: ASYNC110
                await trio.sleep(0.002)
        process = [w for w in workers(events) if w.model == model][-1].process
        killed_at = trio.current_time()
        os.kill(process, signal.SIGKILL)
        await until(events, WorkerDied, deaths + 1)
    told = [e.at for e in events[before:] if isinstance(e, InstanceFinished)]
    return ends, min(at for at in told if at >= killed_at) - killed_at


async def test_killing_the_worker_mid_batch_ends_every_call_by_name(tmp_path: Path) -> None:
    """Twenty times in one engine: no call hangs, the worker's pages are the next one's."""
    delays = []
    script = WorkerScript(step_seconds=0.03)
    async with open_world(
        tmp_path, script=script, limits=QUICK, pages=4096, launcher=open_local_worker
    ) as world:
        for _ in range(20):
            ends, delay = await run_until_killed(world.engine, world.events, "pretend", 400)
            delays.append(delay)
            assert len(ends) == INSTANCES
            assert {end.error_kind for end in ends} == {"WorkerLost"}
            assert all("lost: its process" in (end.error or "") for end in ends)
        end = await world.run("text-completion", "--prompt", "still there", "--max-tokens", "3")
        assert end.error is None
        generations = [w.generation for w in workers(world.events)]
        assert generations == list(range(1, 22))
    assert statistics.median(delays) < 0.05


@pytest.mark.model
@pytest.mark.slow
async def test_killing_a_real_worker_mid_batch_ends_every_call_by_name(tmp_path: Path) -> None:
    events: list[Event] = []
    settings = Settings(models=(ModelSettings(DEFAULT_MODEL),), limits=QUICK, seed=1)
    ports = Ports(RandomStreams(1), emit=events.append)
    delays = []
    async with open_engine(settings, ports, shared_home(tmp_path)) as engine:
        for _ in range(3):
            ends, delay = await run_until_killed(engine, events, DEFAULT_MODEL, 200)
            delays.append(delay)
            assert {end.error_kind for end in ends} == {"WorkerLost"}
            await engine.models[DEFAULT_MODEL].wait_ready()
    assert statistics.median(delays) < 0.05


async def test_instances_of_another_model_notice_nothing(tmp_path: Path) -> None:
    pretend = {"pretend": True, "pages_max": 1024}
    models = (
        ModelSettings("one", pretend_step_seconds=0.01, **pretend),
        ModelSettings("two", pretend_step_seconds=0.01, **pretend),
    )
    events: list[Event] = []
    ports = Ports(RandomStreams(1), emit=events.append)
    settings = Settings(models=models, limits=QUICK, seed=1)
    async with open_engine(settings, ports, shared_home(tmp_path)) as engine:
        record = engine.programs.find("text-completion")
        assert record is not None
        arguments = ("--model", "two", "--prompt", "go on", "--max-tokens", "60")
        survivor = await engine.launch(record, arguments, user="tester")
        ends, _ = await run_until_killed(engine, events, "one", 400)
        assert {end.error_kind for end in ends} == {"WorkerLost"}
        await read_all(survivor)
        alone = await engine.launch(record, arguments, user="tester")
        await read_all(alone)
        assert (await survivor.ended.answer()).value == (await alone.ended.answer()).value
        assert (await survivor.ended.answer()).error is None


async def test_a_worker_that_will_not_start_is_given_up_by_name(tmp_path: Path) -> None:
    script = WorkerScript(never_starts=True)
    limits = Limits(worker_restarts_max=2, worker_restart_backoff_seconds=0.0)
    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_world(tmp_path, script=script, limits=limits):
            pass
    assert caught.group_contains(WorkerLost, match="given up after 2 restarts")
    assert script.started == 3


async def test_an_engine_that_is_killed_leaves_no_worker(tmp_path: Path) -> None:
    """kill -9 of the controller: the kernel takes the worker with it."""
    code = (
        "import trio, sys\n"
        "from pathlib import Path\n"
        "from tests.world import open_world\n"
        "from pie_trio.services.worker_link import open_local_worker\n"
        "from pie_trio.events import WorkerStarted\n"
        "async def main():\n"
        "    async with open_world(Path(sys.argv[1]), launcher=open_local_worker) as world:\n"
        "        (w,) = [e for e in world.events if isinstance(e, WorkerStarted)]\n"
        "        sys.stdout.write(f'{w.process}\\n'); sys.stdout.flush()\n"
        "        await trio.sleep_forever()\n"
        "trio.run(main)\n"
    )
    with subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as engine:
        assert engine.stdout is not None
        worker = psutil.Process(int(await trio.to_thread.run_sync(engine.stdout.readline)))
        engine.kill()
    _, alive = await trio.to_thread.run_sync(lambda: psutil.wait_procs([worker], timeout=2))
    assert not alive
