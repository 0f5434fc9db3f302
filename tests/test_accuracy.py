"""The accuracy bench: what its bars count, and that its figures are those of their definitions."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.accuracy import TEXT, continued, departures
from benchmarks.accuracy_report import render
from benchmarks.bars import accuracy
from benchmarks.bars.accuracy import LLAMA_Q8, agreements, bars

PART, PARTS = 4, 50
NAMES = [
    "bf16: argmax agreement with fp32",
    "bf16: perplexity, ratio to fp32",
    "int8: perplexity, ratio to fp32",
    "int8: argmax agreement less that of llama.cpp Q8_0",
]


def engine(wrong: int, loss: float | None = 2.0, first: int = 0) -> dict[str, Any]:
    """One that differs at so many places, spread over the text."""
    best: list[int | None] = [*[7] * PART * PARTS]
    for index in range(wrong):
        best[(first + index * 11) % len(best)] = 8
    losses: list[float | None] = [*[loss or 2.0] * (len(best) - 1), None]
    found: dict[str, Any] = {"best": best, "loss": losses}
    if loss is None:
        return found
    numbers = [0.1] * len(best)
    return found | dict.fromkeys(("largest", "mean", "divergence"), numbers)


def record(int8: int, llama: dict[str, Any]) -> dict[str, Any]:
    engines = {"bf16": engine(0), "int8": engine(int8, 2.01), LLAMA_Q8: llama}
    found: dict[str, Any] = {"tokens": [1] * PART * PARTS, "part_tokens": PART, "engines": engines}
    found["reference"] = {"best": [7] * PART * PARTS, "loss": [2.0] * PART * PARTS}
    return found


def held(found: dict[str, Any]) -> list[bool]:
    assert [bar["name"] for bar in bars(found)] == NAMES
    return [bar["holds"] for bar in bars(found)]


def test_a_mode_that_is_clearly_nearer_than_the_peer_holds() -> None:
    assert held(record(2, engine(40, None))) == [True, True, True, True]


def test_a_mode_that_is_further_away_or_hardly_nearer_does_not_hold() -> None:
    assert held(record(40, engine(2, None)))[3] is False
    assert held(record(4, engine(5, None, first=5)))[3] is False


def test_a_peer_that_is_missing_leaves_no_bar_that_holds() -> None:
    found = record(2, {"error": "not set up"})
    [bar] = [bar for bar in bars(found) if bar["name"] == NAMES[3]]
    assert (bar["value"], bar["holds"]) == (None, False)
    assert "missing: not set up" in render(found | {"bars": bars(found)})


def test_places_that_a_peer_was_not_asked_about_count_neither_way() -> None:
    llama = engine(0, None)
    llama["best"][::2] = [None] * (PART * PARTS // 2)
    found = record(0, llama)
    assert agreements(found, LLAMA_Q8) == [None, 1.0] * (PART * PARTS // 2)
    assert held(found)[3] is True


def test_a_worse_perplexity_does_not_hold() -> None:
    found = record(0, engine(9, None))
    found["engines"]["bf16"]["loss"] = [2.01] * PART * PARTS
    assert held(found)[1] is False


def test_the_bars_can_be_computed_by_a_script_without_us(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(json.dumps(record(2, engine(40, None))))
    script = Path(accuracy.__file__)
    ended = subprocess.run(
        [sys.executable, "-S", "-I", str(script), str(path)], capture_output=True, check=True
    )
    assert [json.loads(line)["name"] for line in ended.stdout.splitlines()] == NAMES


def test_differences_divergence_and_losses_are_those_of_their_definitions() -> None:
    right = torch.tensor([[0.0, math.log(3.0)], [1.0, 1.0]])
    found = torch.tensor([[0.0, 0.0], [1.0, 3.0]])
    compared = departures(found, right, right.double().log_softmax(dim=-1), [0, 1])
    assert compared["best"] == [0, 1]
    assert compared["largest"] == pytest.approx([math.log(3.0), 2.0])
    assert compared["mean"] == pytest.approx([math.log(3.0) / 2, 1.0])
    apart = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert compared["divergence"][0] == pytest.approx(apart, rel=1e-5)
    assert compared["loss"] == [pytest.approx(math.log(2.0)), None]


def test_a_record_is_continued_only_if_it_is_of_the_same_text_and_weights(tmp_path: Path) -> None:
    said: list[str] = []
    path, identity = tmp_path / "record.json", {"tokens": [1], "weights_sha256": "a"}
    earlier = identity | {"engines": {"bf16": {"best": [7]}}}
    assert continued(path, identity, said.append) == identity | {"engines": {}}
    path.write_text(json.dumps(earlier))
    assert continued(path, identity, said.append) == earlier
    assert not said
    other = identity | {"weights_sha256": "b"}
    assert continued(path, other, said.append) == other | {"engines": {}}
    assert len(said) == 1


def test_the_text_is_long_enough_to_tell_modes_apart() -> None:
    assert len(TEXT.read_text("utf-8").split()) >= 1500
