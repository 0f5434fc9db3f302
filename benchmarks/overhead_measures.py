"""The measurements of `benchmarks.overhead`: each takes an engine and gives figures back.

Times are of the wall where somebody waits, of this process's CPU where a cost is meant. Nothing is
averaged away: launches are told by their median and their slowest.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import attrs
import trio

from pie_trio.actors.instance import Instance
from pie_trio.engine import Engine
from pie_trio.services.guest_build.c_component import build_c
from pie_trio.services.program_store import ProgramRecord

PROGRAM = "text-completion"
CALLS = 20_000
TOKENS = 200
Record = dict[str, str | int | float]


@attrs.define
class Moments:
    """When one launch was answered, said its first thing, and had ended."""

    answered: float
    first: float = 0.0
    ended: float = 0.0


async def launches(engine: Engine, count: int) -> Record:
    """`count` launches of text completion at the same moment."""
    program = _find(engine)
    moments: list[Moments] = []
    started = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(_one_launch, engine, program, started, moments)
    return {
        "at_once": count,
        "ack_median_ms": _milliseconds([each.answered for each in moments], median),
        "ack_max_ms": _milliseconds([each.answered for each in moments], max),
        "first_token_median_ms": _milliseconds([each.first for each in moments], median),
        "ended_max_ms": _milliseconds([each.ended for each in moments], max),
    }


async def _one_launch(
    engine: Engine, program: ProgramRecord, started: float, moments: list[Moments]
) -> None:
    arguments = ("--prompt", "hello", "--max-tokens", "2")
    instance = await engine.launch(program, arguments, user="bench")
    mine = Moments(time.perf_counter() - started)
    moments.append(mine)
    reader = instance.outlet.attach()
    while await reader.next_events():
        mine.first = mine.first or time.perf_counter() - started
    await _well_ended(instance)
    mine.ended = time.perf_counter() - started


async def host_calls(engine: Engine, folder: Path) -> list[Record]:
    """CPU of this process for one host call of each kind, the guest's own share included."""
    component = folder / "host-calls.wasm"
    await trio.to_thread.run_sync(build_c, Path(__file__).parent, "host_calls.c", component)
    program = engine.programs.from_file(component)
    await _cpu(engine, program, "sync", 1)
    records: list[Record] = []
    for kind in ("sync", "ready", "pending"):
        idle = await _cpu(engine, program, kind, 1)
        busy = await _cpu(engine, program, kind, CALLS)
        records.append({"host_call": kind, "cpu_us": round((busy - idle) / CALLS * 1e6, 2)})
    return records


async def _cpu(engine: Engine, program: ProgramRecord, kind: str, count: int) -> float:
    started = time.process_time()
    arguments = ("--kind", kind, "--count", str(count))
    instance = await engine.launch(program, arguments, user="bench", capture=False)
    await _well_ended(instance)
    return time.process_time() - started


async def control_plane(engine: Engine, guests: int) -> Record:
    """CPU of this process for one generated token, with a worker whose steps take no time."""
    program = _find(engine)
    cpu, wall = time.process_time(), time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(guests):
            nursery.start_soon(_generate, engine, program)
    tokens = guests * TOKENS
    return {
        "guests": guests,
        "cpu_us_per_token": round((time.process_time() - cpu) / tokens * 1e6, 1),
        "wall_us_per_token": round((time.perf_counter() - wall) / tokens * 1e6, 1),
    }


async def _generate(engine: Engine, program: ProgramRecord) -> None:
    arguments = ("--prompt", "hello", "--max-tokens", str(TOKENS))
    instance = await engine.launch(program, arguments, user="bench", capture=False)
    await _well_ended(instance)


async def _well_ended(instance: Instance) -> None:
    ended = await instance.ended.answer()
    assert ended.error is None, ended.error


def _find(engine: Engine) -> ProgramRecord:
    program = engine.programs.find(PROGRAM)
    assert program is not None, f"{PROGRAM} is shipped"
    return program


def _milliseconds(seconds: list[float], choose: Callable[[list[float]], float]) -> float:
    return round(choose(seconds) * 1000, 2)
