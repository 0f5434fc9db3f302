"""Must hold: passes that may share a batch do, with real guests and a step of realistic length."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
import trio

from pie_trio.services.guest_build.c_component import build_c
from pie_trio.testing.inline_worker import WorkerScript
from tests.source_tree import ROOT
from tests.world import open_world

BENCHMARKS = ROOT / "benchmarks"
FORKS = """
import asyncio
import inferlet

async def main(args):
    count, steps = int(args[0]), int(args[1])
    context = inferlet.Context(inferlet.get_model())
    context.fill("one common beginning")
    await context.flush()
    branches = [context.fork() for _ in range(count)]
    for number, branch in enumerate(branches):
        branch.fill(f" branch {number}")
    async def decode(branch):
        return [await branch.decode_step(inferlet.Sampler.greedy()) for _ in range(steps)]
    return await asyncio.gather(*(decode(branch) for branch in branches))
"""


@pytest.mark.slow
async def test_n_forks_of_one_guest_reach_batches_of_n(tmp_path: Path) -> None:
    program = tmp_path / "forks.py"
    program.write_text(FORKS)
    script = WorkerScript(step_seconds=0.005)
    async with open_world(tmp_path / "home", script=script) as world:
        end = await world.run(program, "8", "20")
        assert end.error is None, end.error
        sizes = world.batch_sizes()
        assert max(sizes) == 8
        assert sizes.count(8) >= 19


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", ["passes", "streams"])
async def test_32_decoding_guests_share_nearly_every_step(way: str, tmp_path: Path) -> None:
    """500 steps each, page boundaries included: the cohort never splits.

    Best of three, because a machine that others starve for a while can split any cohort.
    """
    program: str | Path = "text-completion"
    if way == "passes":
        program = tmp_path / "decode.wasm"
        build_c(BENCHMARKS, "decode.c", program)
    means = []
    while len(means) < 3 and max(means, default=0.0) < 31:
        means.append(statistics.mean(await rows_with_32_guests(program, tmp_path)))
    assert max(means) >= 31


async def rows_with_32_guests(program: str | Path, home: Path) -> list[int]:
    """Of each step after all have begun."""
    script = WorkerScript(step_seconds=0.015)
    async with open_world(home, script=script, pages=2048) as world:

        async def decode(number: int) -> None:
            arguments = ("--prompt", str(16 + number % 8), "--tokens", "500")
            if isinstance(program, str):
                prompt = f"Tell me about the number {number}"
                arguments = ("--prompt", prompt, "--max-tokens", "500")
            ended = await world.run(program, *arguments)
            assert ended.error is None, ended.error

        async with trio.open_nursery() as nursery:
            for number in range(32):
                nursery.start_soon(decode, number)
        prompts = max(place for place, rows in enumerate(script.step_rows) if rows > 32)
        return script.step_rows[prompts + 1 :]


async def test_a_flush_followed_by_a_decode_takes_no_idle_wait(tmp_path: Path) -> None:
    """Two passes of one queue, the second without awaiting the first, take two steps at most."""
    script = WorkerScript(step_seconds=0.05)
    async with open_world(tmp_path, script=script) as world:
        began = trio.current_time()
        end = await world.run("text-completion", "--prompt", "hello", "--max-tokens", "4")
        assert end.error is None
        steps = len(world.batch_sizes())
        assert trio.current_time() - began < 0.05 * steps + 0.5
