"""How many tokens per second a worker's executor computes, with each kind of kernels.

    python -m benchmarks.engine_step [--model NAME] [--rounds N] [--json FILE]

No server and no guests: whole steps of the executor, from the arrays of a batch to its answers,
with threads that wait as a worker's do. The kinds take turns within each round, and so do the
machine's own limits, so that what else runs on the machine meets all of them alike; and each case
is measured once more beside a process for each core that never rests. Compare within a run only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as a worker does, before torch is loaded

from benchmarks.bars.engine_step import bars
from benchmarks.batches import plain_requests
from benchmarks.machine import Machine
from gpu_worker.executor import ModelExecutor, load_executor
from gpu_worker.kernel_choice import KernelChoice
from gpu_worker.weights import Weights
from gpu_worker.wire import (
    Batch,
    BatchArrays,
    WorkerLimits,
    decode,
    encode,
)
from pie_trio.home import Home
from pie_trio.services.model_store import ModelStore

KINDS = ("torch", "native")
CONTEXT = 128
PAGE = 16
LIMITS = WorkerLimits(PAGE, 1 << 30, 512, 8, 1024, 32)
SAMPLE_SECONDS = 0.25
WEIGHT_BYTES = 2  # bf16
BUSY = "import os; os.sched_setaffinity(0, {%d})\nwhile True: pass"
Samples = dict[str, list[float]]


@attrs.frozen
class Case:
    """`requests` sequences that each append `rows` tokens to a context of `context`."""

    requests: int
    rows: int
    context: int

    @property
    def name(self) -> str:
        return f"decode {self.requests}" if self.rows == 1 else f"prefill {self.rows}"

    def batch(self) -> BatchArrays:
        total = self.context + self.rows
        requests = plain_requests(self.requests, self.rows, total, PAGE, total)
        arrays = decode(encode(Batch(1, 1, (), requests)))
        assert isinstance(arrays, BatchArrays), "a batch is decoded to its arrays"
        return arrays


CASES = (Case(1, 1, CONTEXT), Case(8, 1, CONTEXT), Case(32, 1, CONTEXT), Case(1, 512, 0))


def measure(model: Path, rounds: int, say: Callable[[str], object]) -> Samples:
    """Every sample of every case, by name."""
    samples: Samples = {}
    cache = Home.default().root / "kernels"
    with tempfile.TemporaryDirectory(prefix="pie-bench-") as folder:
        machine = Machine(Path(folder))
        executors: dict[str, ModelExecutor] = {}
        for kind in KINDS:
            say(f"loading the model with {kind} kernels")
            started = time.perf_counter()
            executors[kind] = load_executor(model, LIMITS, KernelChoice(kind, cache, say))
            samples[f"load {kind}"] = [time.perf_counter() - started]
        for turn in range(rounds + 1):
            say(f"round {turn} of {rounds}" if turn else "a round that does not count")
            found = _round(machine, executors)
            for name, value in found.items() if turn else ():
                samples.setdefault(name, []).append(value)
    return samples


def _round(machine: Machine, executors: dict[str, ModelExecutor]) -> dict[str, float]:
    found = {
        "read bytes/s": machine.read_bytes_per_second(),
        "operations/s": machine.operations_per_second(),
    }
    for case in CASES:
        batch = case.batch()
        for kind, executor in executors.items():
            found[f"{case.name} {kind}"] = _tokens_per_second(executor, batch)
    with _busy_neighbours():
        for case in CASES:
            rate = _tokens_per_second(executors["native"], case.batch())
            found[f"{case.name} native beside busy cores"] = rate
    return found


@contextlib.contextmanager
def _busy_neighbours() -> Iterator[None]:
    """One process a core that never rests."""
    cores = sorted(os.sched_getaffinity(0))
    started = [subprocess.Popen([sys.executable, "-c", BUSY % core]) for core in cores]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def _tokens_per_second(executor: ModelExecutor, batch: BatchArrays) -> float:
    steps = 0
    started = time.perf_counter()
    while steps == 0 or time.perf_counter() - started < SAMPLE_SECONDS:
        executor.execute(batch)
        steps += 1
    return steps * len(batch.tokens) / (time.perf_counter() - started)


def _verdict(bar: dict[str, Any]) -> str:
    return f"goal {bar['goal']:.2f} {'holds' if bar['holds'] else 'does not hold'}"


def record_of(samples: Samples, weights: Weights) -> dict[str, Any]:
    """The samples, and what a token costs: the bytes of all weights, the operations in layers."""
    sizes = {name: weights.stored(name).size for name in weights.names}
    return {
        "samples": samples,
        "weight_bytes": WEIGHT_BYTES * sum(sizes.values()),
        "token_operations": 2 * sum(size for name, size in sizes.items() if "layers" in name),
    }


def render(samples: Samples, found: Sequence[dict[str, Any]]) -> str:
    """Medians, and what they have to reach."""
    middle = {name: statistics.median(values) for name, values in samples.items()}
    lines = [
        "| tokens/s | torch | native | ratio | native beside busy cores |",
        "|---|---:|---:|---:|---:|",
    ]
    for case in CASES:
        torch_rate, native = (middle[f"{case.name} {kind}"] for kind in KINDS)
        busy = middle[f"{case.name} native beside busy cores"]
        lines.append(
            f"| {case.name} | {torch_rate:.1f} | {native:.1f} | {native / torch_rate:.2f} "
            f"| {busy:.1f} |"
        )
    loads = [middle[f"load {kind}"] for kind in KINDS]
    lines.append(f"| load, s | {loads[0]:.2f} | {loads[1]:.2f} | | |")
    lines += [
        "",
        f"memory read: {middle['read bytes/s'] / 1e9:.1f} GB/s; "
        f"multiply-add peak: {middle['operations/s'] / 1e9:.0f} GFLOP/s",
        "",
        *(f"{bar['name']}: {bar['value']:.2f}, {_verdict(bar)}" for bar in found),
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Tokens per second of a worker's executor.")
    parser.add_argument("--model", default="smollm2-135m", help="a stored model's name")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write all samples there too")
    options = parser.parse_args(arguments)

    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")

    model = ModelStore(Home.default().models).open(options.model).path
    samples = measure(model, options.rounds, say)
    record = record_of(samples, Weights(model))
    record["bars"] = bars(record)
    sys.stdout.write(render(samples, record["bars"]))
    if options.json is not None:
        options.json.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
