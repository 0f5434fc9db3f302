"""What the server around the engine costs: guests by passes, beside the bare steps of a worker.

    python -m benchmarks.serving [--rounds N] [--tokens N] [--prompt N] [--pretend] [--json FILE]

The real engine with a real worker process; its guests (one in C, one in Python) read a prompt and
then a token a pass, and send each token to a client that reads. Beside it a second worker computes
the same shapes with nobody around it. The kinds take turns within a round: compare within a run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median

import attrs
import trio

from benchmarks.batches import plain_requests
from benchmarks.serving_watch import Observed, Step, observing, window
from gpu_worker import wire
from pie_trio.config import Limits, ModelSettings, Settings
from pie_trio.engine import Engine, open_engine
from pie_trio.home import Home
from pie_trio.ports import Ports, RandomStreams
from pie_trio.services.guest_build.c_component import build_c
from pie_trio.services.model_store import ModelStore, pretend_model
from pie_trio.services.program_store import ProgramRecord
from pie_trio.services.worker_link import WorkerLink, WorkerSpec, open_local_worker

HERE = Path(__file__).parent
KINDS = ("c", "python")
GUESTS = (1, 32)
PAGE = Limits().page_tokens
PRETEND_STEP_SECONDS = 0.02  # long enough that guests which started one by one come together
Samples = dict[str, list[float]]


@attrs.frozen
class Bench:
    """What all measurements share."""

    engine: Engine
    observed: Observed
    bare: WorkerLink
    programs: dict[str, ProgramRecord]
    prompt: int
    tokens: int


@asynccontextmanager
async def open_bench(options: argparse.Namespace, folder: Path) -> AsyncIterator[Bench]:
    home = Home.default()
    name = options.model
    model = ModelSettings(name)
    if options.pretend:
        model = ModelSettings("pretend", pretend=True, pretend_step_seconds=PRETEND_STEP_SECONDS)
    settings = Settings(models=(model,), seed=1)
    ports = Ports(RandomStreams(1))
    observed = Observed()
    launch = observing(open_local_worker, observed)
    async with open_engine(settings, ports, home, launcher=launch) as engine:
        store = ModelStore(home.models)
        place = pretend_model() if options.pretend else store.open(name)
        spec = WorkerSpec(model, place.path, settings.limits, ports)
        component = folder / "decode.wasm"
        await trio.to_thread.run_sync(build_c, HERE, "decode.c", component)
        programs = {
            "c": engine.programs.from_file(component),
            "python": engine.programs.from_file(HERE / "decode.py"),
        }
        async with open_local_worker(spec, 1) as bare:
            ready = await bare.wait_ready()
            assert isinstance(ready, wire.Hello), ready
            yield Bench(engine, observed, bare, programs, options.prompt, options.tokens)


async def bare_steps(bench: Bench, guests: int) -> list[float]:
    """The seconds of the executor alone, for the shapes that as many guests would ask for."""
    seconds = []
    for step in range(bench.tokens + 1):
        result = await bench.bare.execute(_batch(bench, guests, step))
        assert all(answer.error is None for answer in result.answers), result
        seconds.append(result.step_seconds)
    return seconds[1:]


def _batch(bench: Bench, guests: int, step: int) -> wire.Batch:
    rows, most = 1 if step else bench.prompt, bench.prompt + bench.tokens
    requests = plain_requests(guests, rows, bench.prompt + step, PAGE, most)
    return wire.Batch(1, step, (), requests)


async def served_steps(bench: Bench, kind: str, guests: int) -> list[Step]:
    """The steps in which all guests decode, and those between them."""
    bench.observed.steps.clear()
    async with trio.open_nursery() as nursery:
        for _ in range(guests):
            nursery.start_soon(_serve_one, bench, kind)
    return window(bench.observed.steps, guests)


async def _serve_one(bench: Bench, kind: str) -> None:
    arguments = ("--prompt", str(bench.prompt), "--tokens", str(bench.tokens))
    instance = await bench.engine.launch(bench.programs[kind], arguments, user="bench")
    reader = instance.outlet.attach()
    while await reader.next_events():
        pass
    ended = await instance.ended.answer()
    assert ended.error is None, ended.error


async def measure(options: argparse.Namespace, say: Callable[[str], object]) -> Samples:
    samples: Samples = {}
    with tempfile.TemporaryDirectory(prefix="pie-bench-") as folder:
        async with open_bench(options, Path(folder)) as bench:
            for turn in range(options.rounds + 1):
                say(f"round {turn} of {options.rounds}" if turn else "a round that does not count")
                for name, values in (await _round(bench, options)).items():
                    if turn:
                        samples.setdefault(name, []).extend(values)
    return samples


async def _round(bench: Bench, options: argparse.Namespace) -> Samples:
    found: Samples = {}
    for guests in options.guests:
        bare = await bare_steps(bench, guests)
        found[f"bare {guests} step"] = bare
        found[f"bare {guests} tokens/s"] = [guests * len(bare) / sum(bare)]
        for kind in options.kinds:
            name = f"{kind} {guests}"
            steps = await served_steps(bench, kind, guests)
            between = list(pairwise(steps))
            wall = steps[-1].answered - steps[0].answered
            rate = sum(step.rows for step in steps[1:]) / wall
            found[f"{name} tokens/s"] = [rate]
            found[f"{name} share of bare"] = [rate * sum(bare) / (guests * len(bare))]
            found[f"{name} step"] = [step.seconds for step in steps]
            found[f"{name} link"] = [s.answered - s.asked - s.seconds for s in steps]
            found[f"{name} turn"] = [later.asked - step.answered for step, later in between]
            found[f"{name} cpu"] = [(steps[-1].cpu - steps[0].cpu) / len(between)]
            found[f"{name} cpu in the turn"] = [
                later.cpu_asked - step.cpu for step, later in between
            ]
    return found


def render(samples: Samples, guests: Sequence[int], kinds: Sequence[str]) -> str:
    """Medians. A period is step + link + turn; the worker waits during link and turn."""
    middle = {name: median(values) for name, values in samples.items()}
    columns = ("step", "link", "turn", "cpu", "cpu in the turn")
    lines = [
        "| guests | tokens/s | of bare | step ms | link ms | turn ms | cpu ms | of it, turn |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for count in guests:
        rate, step = middle[f"bare {count} tokens/s"], middle[f"bare {count} step"]
        lines.append(f"| bare {count} | {rate:.1f} | 1.000 | {step * 1e3:.2f} | | | | |")
        for kind in kinds:
            name = f"{kind} {count}"
            times = " | ".join(f"{middle[f'{name} {column}'] * 1e3:.2f}" for column in columns)
            share = middle[f"{name} share of bare"]
            lines.append(f"| {name} | {middle[f'{name} tokens/s']:.1f} | {share:.3f} | {times} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="What the server around the engine costs.")
    parser.add_argument("--model", default="smollm2-135m", help="a stored model's name")
    parser.add_argument("--pretend", action="store_true", help="a worker that only sleeps")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=16, help="tokens of each prompt")
    parser.add_argument("--tokens", type=int, default=32, help="passes after the prompt")
    parser.add_argument("--guests", type=int, nargs="+", default=GUESTS)
    parser.add_argument("--kinds", choices=KINDS, nargs="+", default=KINDS)
    parser.add_argument("--json", type=Path, help="write all samples there too")
    options = parser.parse_args(arguments)

    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")

    started = time.perf_counter()
    samples = trio.run(measure, options, say)
    say(f"{time.perf_counter() - started:.0f} s")
    sys.stdout.write(render(samples, options.guests, options.kinds))
    if options.json is not None:
        options.json.write_text(json.dumps(samples) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
