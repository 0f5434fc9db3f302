"""Figures 9, 10 and 11: launches and host calls, many at once, on a worker that takes no time.

A launch counts from the client's request to the server's answer. Cold: the program is new to the
server, so it is uploaded and compiled. Calls are timed by the guest, between asking and answer.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import trio

import inferlets
from benchmarks.paper.record import Run
from benchmarks.paper.served import Served, open_served
from pie_trio.client import Client, open_client
from pie_trio.config import ModelSettings

LAUNCHES, CALLS = "fig9", "fig10"
PROGRAM, PINGS = "bench-spawn", "bench-latency"
AT_ONCE, AT_ONCE_QUICK = (1, 8, 32, 128, 512, 896), (1, 8, 64)
COLD_AT_ONCE = (1, 8, 32)
PINGS_OF_ONE = 50
PRETEND = ModelSettings("pretend", pretend=True)


def measure_launches(run: Run) -> None:
    counts = AT_ONCE_QUICK if run.sizes.is_quick else AT_ONCE
    for turn in range(1, run.sizes.rounds + 1):
        with open_served(PRETEND) as served:
            trio.run(_launches, served.address, 1)
            for count in counts:
                run.say(f"{LAUNCHES}: {count} warm launches, round {turn}")
                seconds = sorted(trio.run(_launches, served.address, count))
                run.note(LAUNCHES, f"warm {count}", turn, **_middle_and_worst(seconds))
        with open_served(PRETEND, is_cold=True) as served:
            for count in COLD_AT_ONCE[:2] if run.sizes.is_quick else COLD_AT_ONCE:
                run.say(f"{LAUNCHES}: {count} cold launches, round {turn}")
                seconds = sorted(trio.run(_cold_launches, served, count))
                run.note(LAUNCHES, f"cold {count}", turn, **_middle_and_worst(seconds))


def _middle_and_worst(ordered: list[float]) -> dict[str, float]:
    return {"median": ordered[len(ordered) // 2], "worst": ordered[-1]}


async def _launches(address: str, count: int) -> list[float]:
    seconds: list[float] = []
    async with open_client(address) as client, trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(_launch, client, PROGRAM, seconds, time.perf_counter())
    return seconds


async def _launch(client: Client, program: str, seconds: list[float], started: float) -> None:
    instance = await client.launch(program)
    seconds.append(time.perf_counter() - started)
    await instance.result()


async def _cold_launches(served: Served, count: int) -> list[float]:
    seconds: list[float] = []
    [folder] = inferlets.__path__
    component = (Path(folder) / PROGRAM / f"{PROGRAM}.wasm").read_bytes()
    async with open_client(served.address) as client, trio.open_nursery() as nursery:
        for place in range(count):
            path = served.folder / f"cold-{count}-{place}.wasm"
            path.write_bytes(component + custom_section(path.stem))
            nursery.start_soon(_cold_launch, client, path, seconds)
    return seconds


async def _cold_launch(client: Client, path: Path, seconds: list[float]) -> None:
    started = time.perf_counter()
    program = await client.install_file(path)
    await _launch(client, program, seconds, started)


def custom_section(text: str) -> bytes:
    """What makes a component another one, and changes nothing; for texts of less than 100 bytes."""
    name = text.encode()
    assert len(name) < 100, "its lengths are one byte each"
    return bytes([0, len(name) + 1, len(name)]) + name


def measure_calls(run: Run) -> None:
    counts = AT_ONCE_QUICK if run.sizes.is_quick else AT_ONCE
    with open_served(PRETEND) as served:
        for layer in ("control", "inference"):
            trio.run(_pings, served.address, layer, 1)
            for turn in range(1, run.sizes.rounds + 1):
                for count in counts:
                    run.say(f"{CALLS}: {layer}, {count} at once, round {turn}")
                    seconds = sorted(trio.run(_pings, served.address, layer, count))
                    run.note(CALLS, f"{layer} {count}", turn, **_middle_and_worst(seconds))


async def _pings(address: str, layer: str, count: int) -> list[float]:
    """The median of each guest, in seconds."""
    seconds: list[float] = []

    async def ping(client: Client) -> None:
        arguments = ("--layer", layer, "--count", str(PINGS_OF_ONE))
        instance = await client.launch(PINGS, arguments=arguments)
        seconds.append(json.loads(await instance.result())["median_ns"] / 1e9)

    async with open_client(address) as client, trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(ping, client)
    return seconds
