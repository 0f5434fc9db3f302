"""The engine's bars, on made-up samples: what is missing or too slow never holds."""

from __future__ import annotations

import ast
import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bars import engine as bars_of_engine
from benchmarks.bars.engine import BARE, INT8, LLAMA_Q8, MACHINE, OPENVINOS, SERVED, VLLM, bars
from benchmarks.engine_cases import Bench
from benchmarks.engine_peers import ENVIRONMENTS, OURS, PEERS
from benchmarks.engine_plan import PARTS, At, Plan, cases
from benchmarks.engine_report import render
from benchmarks.engine_served import rate_of

ROUNDS = 7
SIZES = {"weights": 1000, "layer_weights": 800, "layers": 2, "attention_width": 4}
WORK_OF_A_TOKEN = 2 * 800 + 4 * 4 * 2 * 513 / 2
Record = dict[str, Any]


def made_up() -> Record:
    """A run in which every bar just holds."""
    rates: dict[tuple[str, str], float] = {
        (MACHINE, "read_bytes"): 100.0 * 2000 / 0.9,
        (MACHINE, "read_bytes after"): 100.0 * 2000 / 0.8,
        (MACHINE, "operations"): 100.0 * WORK_OF_A_TOKEN / 0.8,
        (MACHINE, "operations after"): 100.0 * WORK_OF_A_TOKEN / 0.8,
        (SERVED, "32 c guests"): 150.0,
        (BARE, "as 32 guests"): 170.0,
        (BARE, "as 32 guests after"): 150.0,
        (VLLM, "decode 32"): 90.0,
    }
    for case in bars_of_engine.CASES:
        for engine in (BARE, INT8, LLAMA_Q8, *OPENVINOS):
            rates[engine, case] = 100.0
    samples = [
        {"round": turn, "part": part, "engine": engine, "case": case, "value": rate}
        for turn in range(ROUNDS)
        for part in range(PARTS)
        for (engine, case), rate in rates.items()
    ]
    starts = {"first": 2.0, "second": 1.0, "transformers": 5.0}
    return {
        "model": "made up",
        "threads": 2,
        "engines": {engine: {"weight_bytes": 2} for engine in (BARE, INT8, *OPENVINOS)},
        "sizes": SIZES,
        "samples": samples,
        "skipped": [],
        "agreement": {name: {"same": 9, "asked": 10} for name in (INT8, LLAMA_Q8)},
        "arrivals": {"at": [0.0], "times": {BARE: [[0.5, 0.6, 0.8]]}},
        "starts": [
            {"what": what, "seconds": seconds} for _ in range(3) for what, seconds in starts.items()
        ],
    }


def failing(record: Record) -> set[str]:
    return {bar["name"] for bar in bars(record) if not bar["holds"]}


def without(record: Record, engine: str, case: str | None = None) -> Record:
    """As if that engine, or one of its cases, had not been measured."""
    record = copy.deepcopy(record)
    record["samples"] = [
        sample
        for sample in record["samples"]
        if sample["engine"] != engine or case not in (None, sample["case"])
    ]
    return record


def slowed(record: Record, engine: str, case: str, factor: float, rounds: int = ROUNDS) -> Record:
    record = copy.deepcopy(record)
    for sample in record["samples"]:
        is_it = sample["engine"] == engine and sample["case"] == case
        if is_it and sample["round"] < rounds:
            sample["value"] *= factor
    return record


def test_a_run_that_reaches_everything_holds() -> None:
    assert failing(made_up()) == set()


@pytest.mark.parametrize("engine", [*OPENVINOS, LLAMA_Q8, VLLM, INT8, SERVED, MACHINE])
def test_what_hangs_on_a_missing_engine_does_not_hold(engine: str) -> None:
    expected = {bar["name"] for bar in bars(made_up()) if engine in bar["name"]}
    missing = failing(without(made_up(), engine))
    assert expected <= missing
    assert missing
    found = {bar["name"]: bar["value"] for bar in bars(without(made_up(), engine))}
    assert all(found[name] is None for name in missing)


@pytest.mark.parametrize("case", bars_of_engine.CASES)
def test_a_skipped_case_does_not_hold(case: str) -> None:
    missing = failing(without(made_up(), "OpenVINO f32", case))
    assert missing == {f"{case}, ratio to OpenVINO f32"}


def test_a_slow_case_does_not_hold() -> None:
    found = failing(slowed(made_up(), BARE, "decode 8", 0.9))
    assert found == {f"decode 8, ratio to {peer}" for peer in OPENVINOS}


def test_it_is_the_bound_that_must_hold_and_not_the_median() -> None:
    found = bars(slowed(made_up(), BARE, "decode 8", 0.9, rounds=3))
    [bar] = [each for each in found if each["name"] == "decode 8, ratio to OpenVINO f32"]
    assert bar["value"] == 1.0
    assert not bar["holds"]


def test_ratios_are_taken_within_a_part_of_a_round() -> None:
    record = made_up()
    for sample in record["samples"]:
        sample["value"] *= (1 + sample["round"]) * (1 + 9 * sample["part"])
    assert failing(record) == set()


def test_a_limit_counts_only_where_it_was_measured_before_and_after() -> None:
    missing = failing(without(made_up(), MACHINE, "operations after"))
    assert missing == {"multiply-add share, prefill 512"}
    missing = failing(without(made_up(), BARE, "as 32 guests after"))
    assert missing == {"32 C guests, ratio to bare"}


def test_every_bar_is_asked_for_in_each_part_of_a_round() -> None:
    plan = Plan("none", Path(), 1, 1, 0, 1, 1, None, False)
    compared = {BARE, INT8, LLAMA_Q8, *OPENVINOS}
    for case in cases():
        if case.name in bars_of_engine.CASES:
            assert len([*plan.moments(1, case.name)]) == PARTS
            due = {peer.name for peer in PEERS if plan.is_due(peer, case.name, At(1, PARTS - 1))}
            assert due == compared | ({VLLM} if case.name == "decode 32" else set())


def test_shares_of_the_machine_follow_from_sizes() -> None:
    found = {bar["name"]: bar["value"] for bar in bars(made_up())}
    assert found["bandwidth share, decode 1"] == pytest.approx(0.847, abs=1e-3)
    assert found["multiply-add share, prefill 512"] == pytest.approx(0.8)


def test_a_worker_that_starts_slowly_does_not_hold() -> None:
    record = made_up()
    for start in record["starts"]:
        start["seconds"] *= 2 if start["what"] == "second" else 1
    assert failing(record) == {"second start, ratio to the first"} - {
        bar["name"] for bar in bars(record) if bar["value"] == 1.0
    }
    record["starts"] = [start for start in record["starts"] if start["what"] != "transformers"]
    assert {f"{what} start, ratio to transformers" for what in ("first", "second")} <= failing(
        record
    )


def test_the_script_of_the_bars_imports_nothing_of_ours() -> None:
    tree = ast.parse(Path(bars_of_engine.__file__).read_text("utf-8"))
    modules = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert all(name.split(".")[0] in sys.stdlib_module_names for name in modules)


def test_the_script_reads_a_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    file.write_text(json.dumps(without(made_up(), VLLM)), "utf-8")
    command = [sys.executable, "-I", bars_of_engine.__file__, str(file)]
    said = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path).stdout
    assert "32 C guests, ratio to vLLM-CPU fp32: missing (goal 1.5): DOES NOT HOLD" in said


def test_peers_that_are_not_set_up_are_named_with_their_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PIE_TRIO_HOME", str(tmp_path))
    peers = [peer for peer in PEERS if peer.environment != OURS]
    plan = Plan("none", tmp_path, 1, 1, 0, 1, 1, tuple(peer.name for peer in peers), False)
    heard: list[str] = []
    bench = Bench(plan, heard.append)
    record = bench.run()
    record |= {"sizes": SIZES}
    record["bars"] = bars(record)
    assert not any(bar["holds"] for bar in record["bars"])
    for peer in peers:
        assert f"- {peer.name}: MISSING, not set up" in render(record)


def test_every_peer_has_an_environment() -> None:
    assert {peer.environment for peer in PEERS} == {OURS, *ENVIRONMENTS}


def test_guests_count_what_their_client_has_read_while_all_of_them_decode() -> None:
    by_passes = [[0.0, 1.0, 2.0, 3.0, 4.0], [1.0, 1.5, 2.5, 3.0]]
    assert rate_of(by_passes) == (2 + 3) / (3.0 - 1.0)
