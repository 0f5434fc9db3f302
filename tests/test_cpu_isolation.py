"""Must hold: a guest that never stops computing dies when told to, and slows nobody unduly."""

from __future__ import annotations

import statistics
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from pie_trio.actors.instance import Instance
from pie_trio.testing.inline_worker import WorkerScript
from tests.world import World, open_world, read_all

SPIN = "def main(args):\n    while True:\n        pass\n"
BUSY_PROCESS = "while True: pass"
KILL_SECONDS = 0.1
TOKENS = "150"


async def spin(world: World, folder: Path) -> Instance:
    """An endless loop in the guest, well under way."""
    program = folder / "spin.py"
    program.write_text(SPIN)
    instance = await world.launch(program)
    await trio.sleep(0.3)  # it is spinning, not starting
    assert not instance.is_finished
    return instance


@pytest.mark.slow
async def test_an_endless_loop_dies_within_100_ms_of_its_abort(tmp_path: Path) -> None:
    async with open_world(tmp_path / "home") as world:
        delays = []
        for _ in range(5):
            instance = await spin(world, tmp_path)
            began = trio.current_time()
            instance.terminate()
            with trio.fail_after(10):
                ended = await instance.ended.answer()
            delays.append(trio.current_time() - began)
            assert (ended.error, ended.error_kind) == ("Signal", "Terminated")
        assert statistics.median(delays) < KILL_SECONDS


@asynccontextmanager
async def busy_native_process() -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        command = [sys.executable, "-c", BUSY_PROCESS]
        nursery.start_soon(partial(trio.run_process, command, deliver_cancel=kill))
        yield
        nursery.cancel_scope.cancel()


async def kill(process: trio.Process) -> None:
    process.kill()


async def tokens_per_second(world: World) -> float:
    began = trio.current_time()
    instance = await world.launch("text-completion", "--prompt", "pace", "--max-tokens", TOKENS)
    await read_all(instance)
    return int(TOKENS) / (trio.current_time() - began)


@pytest.mark.slow
async def test_beside_a_spinning_guest_another_keeps_half_of_its_pace(tmp_path: Path) -> None:
    """Against the pace beside a busy native process, in the same run, in turns, by medians."""
    script = WorkerScript(step_seconds=0.004)
    async with open_world(tmp_path / "home", script=script) as world:
        await tokens_per_second(world)
        ratios = []
        for _ in range(5):
            async with busy_native_process():
                beside_process = await tokens_per_second(world)
            spinner = await spin(world, tmp_path)
            beside_guest = await tokens_per_second(world)
            spinner.terminate()
            await spinner.ended.wait()
            ratios.append(beside_guest / beside_process)
        assert statistics.median(ratios) >= 0.5
