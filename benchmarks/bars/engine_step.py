"""The bars of `benchmarks.engine_step`, from the raw samples of its JSON.

    python benchmarks/bars/engine_step.py FILE

Shares and ratios are taken within a round; a bar holds when its median does. It imports the
standard library only.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CASES = ("decode 1", "decode 8", "decode 32", "prefill 512")
SLOWER_MAX = 2.5  # beside a busy process for each core
Record = dict[str, Any]


def bars(record: Record) -> list[Record]:
    """One entry for each compared number."""
    samples = record["samples"]
    shares = [
        _bar(
            "bandwidth share, decode 1",
            _products(samples, "decode 1 native", "read bytes/s", record["weight_bytes"]),
            0.80,
        ),
        _bar(
            "multiply-add share, prefill 512",
            _products(samples, "prefill 512 native", "operations/s", record["token_operations"]),
            0.75,
        ),
    ]
    return shares + [
        _bar(
            f"{case}, share kept beside busy cores",
            _products(samples, f"{case} native beside busy cores", f"{case} native", 1.0),
            1 / SLOWER_MAX,
        )
        for case in CASES
    ]


def _products(samples: Record, rate: str, limit: str, cost: float) -> list[float]:
    pairs = zip(samples[rate], samples[limit], strict=True)
    return [value * cost / most for value, most in pairs]


def _bar(name: str, values: Sequence[float], goal: float) -> Record:
    value = statistics.median(values)
    return {"name": name, "value": value, "goal": goal, "holds": value >= goal}


if __name__ == "__main__":
    for bar in bars(json.loads(Path(sys.argv[1]).read_text("utf-8"))):
        sys.stdout.write(f"{json.dumps(bar)}\n")
