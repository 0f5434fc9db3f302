"""`pie-trio bench engine`: our engine, bare and served, beside the engines one would pick instead.

One run, in turns: every figure is comparable within it and only there. Each peer is a process of
its own environment; one that is missing is named, and what hangs on it does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.bars.engine import bars
from benchmarks.engine_cases import Bench
from benchmarks.engine_plan import Plan
from benchmarks.engine_report import render
from benchmarks.engine_setup import set_up
from pie_trio.home import Home
from pie_trio.services.model_store import DEFAULT_MODEL, ModelStore

FAILED = 5  # the exit code when a bar does not hold, or a peer cannot be set up
ROUNDS, ROUNDS_QUICK = 7, 1
STARTS, STARTS_QUICK = 3, 1
ARRIVALS, ARRIVALS_QUICK = 20, 6
QUESTIONS, QUESTIONS_QUICK = 12, 6


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)

    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    if options.setup:
        failures = set_up(say)
        for failure in failures:
            say(f"could not set up {failure}")
        return FAILED if failures else 0
    # A terminated run takes its stopped peers with it: they could not end by themselves.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    plan = _plan(options)
    record = Bench(plan, say).run()
    record["sizes"] = sizes_of(plan.directory)
    record["bars"] = bars(record)
    sys.stdout.write(render(record))
    if options.json is not None:
        options.json.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    if options.plot is not None:
        from benchmarks.engine_plot import plot

        plot(record, options.plot)
    return 0 if all(bar["holds"] for bar in record["bars"]) else FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pie-trio bench engine", description=__doc__)
    parser.add_argument("--setup", action="store_true", help="install the peers and end")
    parser.add_argument("--quick", action="store_true", help="one round of the main cases")
    parser.add_argument("--rounds", type=int, help="how often each case is measured")
    parser.add_argument("--only", action="append", metavar="ENGINE", help="may be repeated")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a stored model's name")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there too")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it as a PNG")
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    quick = options.quick
    return Plan(
        model=options.model,
        directory=ModelStore(Home.default().models).open(options.model).path,
        threads=options.threads,
        rounds=options.rounds or (ROUNDS_QUICK if quick else ROUNDS),
        starts=STARTS_QUICK if quick else STARTS,
        arrivals=ARRIVALS_QUICK if quick else ARRIVALS,
        questions=QUESTIONS_QUICK if quick else QUESTIONS,
        only=tuple(options.only) if options.only else None,
        is_quick=quick,
    )


def sizes_of(directory: Path) -> dict[str, int]:
    """How many weights the model has, and how wide its attention is."""
    weights: dict[str, int] = {}
    for path in directory.glob("*.safetensors"):
        with path.open("rb") as file:
            [length] = struct.unpack("<Q", file.read(8))
            header: dict[str, Any] = json.loads(file.read(length))
        for name, tensor in header.items():
            if name != "__metadata__":
                start, end = tensor["data_offsets"]
                weights[name] = (end - start) // (4 if tensor["dtype"] == "F32" else 2)
    config = json.loads((directory / "config.json").read_text("utf-8"))
    head_width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return {
        "weights": sum(weights.values()),
        "layer_weights": sum(size for name, size in weights.items() if "layers." in name),
        "layers": config["num_hidden_layers"],
        "attention_width": config["num_attention_heads"] * head_width,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
