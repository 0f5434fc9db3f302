"""What the controller itself costs: launches, host calls, tokens; beside published numbers.

    python -m benchmarks.overhead [--json FILE] [--quick]

It runs the real engine with a pretend worker process whose steps take no time, on a home of its
own that is gone afterwards. Figures of a busy machine are upper bounds: compare within a run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from benchmarks.overhead_measures import control_plane, host_calls, launches
from benchmarks.overhead_table import render
from pie_trio.config import ModelSettings, Settings
from pie_trio.engine import Engine, open_engine
from pie_trio.home import Home
from pie_trio.ports import Ports, RandomStreams

AT_ONCE = (1, 8, 64, 256, 896)
AT_ONCE_QUICK = (1, 8)
GUESTS = (1, 8, 32)
GUESTS_QUICK = (1, 8)
Record = dict[str, str | int | float]


@asynccontextmanager
async def open_bench_engine(root: Path) -> AsyncIterator[Engine]:
    settings = Settings(models=(ModelSettings("pretend", pretend=True),), seed=1)
    async with open_engine(settings, Ports(RandomStreams(1)), Home(root)) as engine:
        yield engine


async def measure(quick: bool, say: Callable[[str], object]) -> list[Record]:
    records: list[Record] = []
    at_once = AT_ONCE_QUICK if quick else AT_ONCE
    for count in at_once:
        say(f"cold launches, {count} at once")
        with tempfile.TemporaryDirectory(prefix="pie-bench-") as folder:
            async with open_bench_engine(Path(folder)) as engine:
                records.append({"launch": "cold", **await launches(engine, count)})
    with tempfile.TemporaryDirectory(prefix="pie-bench-") as folder:
        async with open_bench_engine(Path(folder)) as engine:
            await launches(engine, 1)
            for count in at_once:
                say(f"warm launches, {count} at once")
                records.append({"launch": "warm", **await launches(engine, count)})
            say("host calls")
            records += await host_calls(engine, Path(folder))
            for guests in GUESTS_QUICK if quick else GUESTS:
                say(f"tokens of {guests} guests")
                records.append(await control_plane(engine, guests))
    return records


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="What the controller itself costs.")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller measurements")
    options = parser.parse_args(arguments)

    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")

    records = trio.run(measure, options.quick, say)
    sys.stdout.write(render(records))
    if options.json is not None:
        options.json.write_text(json.dumps(records, indent=2) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
