"""The seams hold: the same seed gives the same events, to the last batch and microsecond.

Everything that is not deterministic is handed in: the clock is virtual, guests are cut into slices
by fuel, Trio picks its tasks in a seeded order, identities and chance come from named streams.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from pie_trio.events import Event
from pie_trio.testing.inline_worker import WorkerScript
from pie_trio.wasm.ticker import FuelSlices
from tests.world import open_world, read_all

GUEST = """
import asyncio, random, time
import inferlet

async def main(args):
    context = inferlet.Context(inferlet.get_model())
    context.fill("once upon a time " + args[0])
    branches = [context.fork() for _ in range(3)]
    sampler = inferlet.Sampler.multinomial(1.0)
    async def decode(branch):
        await asyncio.sleep(random.random())
        return [await branch.decode_step(sampler) for _ in range(5)]
    tokens = await asyncio.gather(*(decode(branch) for branch in branches))
    return [tokens, random.random(), time.time(), time.monotonic()]
"""

Trace = tuple[list[Event], list[str]]


async def story(root: Path, seed: int) -> Trace:
    program = root / "guest.py"
    program.write_text(GUEST)
    script = WorkerScript(step_seconds=0.01, row_seconds=0.001, dies_after_batch=25)
    ends: list[str] = []
    async with open_world(
        root / "home", script=script, seed=seed, slicing=FuelSlices(), wall=trio.current_time
    ) as world:

        async def run_one(*arguments: Any) -> None:
            instance = await world.launch(*arguments)
            ends.extend(f"{instance.id} {event}" for event in await read_all(instance))

        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(run_one, program, str(number))
                prompt = ("--prompt", f"number {number}", "--max-tokens", "9")
                nursery.start_soon(run_one, "text-completion", *prompt)
    return world.events, ends


def run_story(root: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> Trace:
    monkeypatch.setattr(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    monkeypatch.setattr(trio._core._run, "_r", random.Random(seed))
    return trio.run(story, root, seed, clock=MockClock(autojump_threshold=0))


@pytest.mark.slow
def test_the_same_seed_gives_the_same_events_and_another_seed_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trio.run(story, tmp_path, 7)  # compiles for fuel, in processes that no virtual clock governs
    first = run_story(tmp_path, 7, monkeypatch)
    assert run_story(tmp_path, 7, monkeypatch) == first
    events, ends = first
    assert len(events) > 60
    assert any("WorkerLost" in event.outcome for event in events if hasattr(event, "outcome"))
    assert run_story(tmp_path, 8, monkeypatch)[1] != ends
