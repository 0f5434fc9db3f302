"""The bars of `pie-trio bench engine --accuracy`, from the raw values of its JSON.

    python benchmarks/bars/accuracy.py FILE

Everything is held to fp32 arithmetic on the weights as the model's own file means them. A bar holds
when its 95 % bound does, by a bootstrap over the parts of the text. It imports the standard library
only.
"""

from __future__ import annotations

import json
import math
import random
import statistics
import sys
from pathlib import Path
from typing import Any

LLAMA_Q8 = "llama.cpp Q8_0"
AGREEMENT_BF16 = 0.985
PERPLEXITY_BF16, PERPLEXITY_INT8 = 1.005, 1.02
RESAMPLES = 2000
Record = dict[str, Any]


def bars(record: Record) -> list[Record]:
    """One entry for each compared number."""
    agreed = {name: agreements(record, name) for name in record["engines"]}
    part = record["part_tokens"]
    found = [
        _least("bf16: argmax agreement with fp32", agreed.get("bf16", []), AGREEMENT_BF16, part)
    ]
    for name, most in (("bf16", PERPLEXITY_BF16), ("int8", PERPLEXITY_INT8)):
        found.append(_perplexity(record, name, most))
    name = "int8: argmax agreement less that of llama.cpp Q8_0"
    pairs = zip(agreed.get("int8", []), agreed.get(LLAMA_Q8, []), strict=False)
    differences = [
        None if ours is None or theirs is None else ours - theirs for ours, theirs in pairs
    ]
    return [*found, _least(name, differences, 0.0, part)]


def agreements(record: Record, name: str) -> list[float | None]:
    """At each place of the text whether the likeliest token is that of fp32."""
    engine = record["engines"][name]
    if "error" in engine:
        return []
    pairs = zip(engine["best"], record["reference"]["best"], strict=True)
    return [None if ours is None else float(ours == right) for ours, right in pairs]


def perplexity(losses: list[float | None]) -> float:
    return math.exp(statistics.fmean(loss for loss in losses if loss is not None))


def _perplexity(record: Record, name: str, most: float) -> Record:
    title = f"{name}: perplexity, ratio to fp32"
    engine = record["engines"].get(name, {})
    if "loss" not in engine:
        return {"name": title, "value": None, "goal": most, "holds": False}
    value = perplexity(engine["loss"]) / perplexity(record["reference"]["loss"])
    return {"name": title, "value": value, "goal": most, "holds": value <= most}


def _least(name: str, values: list[float | None], goal: float, part: int) -> Record:
    parts = [
        [value for value in values[start : start + part] if value is not None]
        for start in range(0, len(values), part)
    ]
    parts = [each for each in parts if each]
    if not parts:
        return {"name": name, "value": None, "goal": goal, "holds": False}
    bound = _lower_bound(parts)
    value = _mean(parts)
    return {"name": name, "value": value, "bound": bound, "goal": goal, "holds": bound >= goal}


def _mean(parts: list[list[float]]) -> float:
    return sum(map(sum, parts)) / sum(map(len, parts))


def _lower_bound(parts: list[list[float]]) -> float:
    chance = random.Random(1)
    means = sorted(_mean(chance.choices(parts, k=len(parts))) for _ in range(RESAMPLES))
    return means[int(RESAMPLES * 0.05)]


if __name__ == "__main__":
    for bar in bars(json.loads(Path(sys.argv[1]).read_text("utf-8"))):
        sys.stdout.write(json.dumps(bar) + "\n")
