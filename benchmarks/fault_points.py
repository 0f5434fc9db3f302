"""What the fault points in production code cost while nobody simulates: their share of a pass.

    python -m benchmarks.fault_points

Counts how often a point is passed for each token of one guest over a worker whose steps take no
time, times one passing of a point that does nothing, and sets both against the controller's CPU
for a token, all in the same run.
"""

from __future__ import annotations

import sys
import tempfile
import timeit
from collections import Counter
from pathlib import Path

import attrs
import trio

from benchmarks.overhead_measures import TOKENS, control_plane
from pie_trio.config import ModelSettings, Settings
from pie_trio.engine import open_engine
from pie_trio.home import Home
from pie_trio.ports import Ports, RandomStreams

PASSINGS = 200_000
ROUNDS = 5


async def cpu_per_token(root: Path, ports: Ports) -> float:
    """In microseconds; the least of some rounds."""
    settings = Settings(models=(ModelSettings("pretend", pretend=True),), seed=1)
    async with open_engine(settings, ports, Home(root)) as engine:
        rounds = [await control_plane(engine, 1) for _ in range(ROUNDS)]
    return min(float(each["cpu_us_per_token"]) for each in rounds[1:])


def main() -> None:
    ports = Ports(RandomStreams(1))
    passed: Counter[str] = Counter()
    counting = attrs.evolve(ports, hit=lambda name: passed.update((name,)))
    with tempfile.TemporaryDirectory(prefix="pie-bench-") as folder:
        whole = trio.run(cpu_per_token, Path(folder), ports)
        trio.run(cpu_per_token, Path(folder), counting)
    points = passed.total() / (ROUNDS * TOKENS)
    empty = min(timeit.repeat("pass", number=PASSINGS))
    one = (min(timeit.repeat(lambda: ports.hit("x"), number=PASSINGS)) - empty) / PASSINGS * 1e6
    sys.stdout.write(
        f"{points:.2f} fault points a token, {one * 1000:.0f} ns each: {points * one / whole:.2%}"
        f" of the controller's {whole:.0f} us of CPU for a token\n"
    )


if __name__ == "__main__":
    main()
