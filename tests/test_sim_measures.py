"""The measures of the simulator: traces compared across processes, lines counted, bars computed."""

from __future__ import annotations

import importlib.util
from types import ModuleType
from typing import Any

import pytest

from pie_trio.errors import BadConfig
from pie_trio.testing import line_coverage
from pie_trio.testing.faults import Faults
from pie_trio.testing.line_coverage import (
    LEFT_OUT,
    SEEDS_OF_A_SCENARIO,
    FileLines,
    LineCoverage,
    measure,
)
from pie_trio.testing.scenarios import SCENARIOS
from pie_trio.testing.selfcheck import CheckBroken, differing, digests_elsewhere
from pie_trio.testing.simulation import Simulation
from pie_trio.testing.swarm import SwarmTask
from tests.source_tree import ROOT

BARS = ROOT / "benchmarks" / "bars" / "sim.py"


def bars_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sim_bars_alone", BARS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def seeds_raw(**more: Any) -> dict[str, Any]:
    raw = {
        "command": "sim run",
        "options": {"scenario": None},
        "seeds": 400,
        "real_seeds": 110,
        "failures": [],
        "never_reached": [],
        "selfcheck": {"0": [5, 5, 5, 5], "20": [6, 6, 6, 6]},
        "lines": [{"file": "a.py", "all": 100, "covered": 86}],
    }
    return {**raw, **more}


def rates(scenarios: int) -> dict[str, Any]:
    """Ours, beside a hundred scenarios a second of another."""
    return rounds_of(scenarios / 2, scenarios / 2)


def rounds_of(*scenarios: float) -> dict[str, Any]:
    sample = {"steps": 500, "passes": 30, "seconds": 0.5}
    mine = [{**sample, "scenarios": count} for count in scenarios]
    return {"scripted": mine, "prototype": [{**sample, "scenarios": 50}] * len(scenarios)}


def failing(raw: dict[str, Any]) -> list[str]:
    return [bar["name"] for bar in bars_module().bars(raw) if not bar["holds"]]


def test_a_seed_is_the_same_run_in_processes_with_other_hash_seeds() -> None:
    seeds = (3, 17)
    traces = digests_elsewhere(SwarmTask(seeds, "mixed", Faults(), None))
    assert {len(digests) for digests in traces.values()} == {3}
    for seed in seeds:
        traces[seed].append(Simulation(seed, Faults(), "mixed").run().digest)
    assert differing(traces) == []


def test_a_process_that_dies_is_no_difference() -> None:
    with pytest.raises(CheckBroken, match="no scenario"):
        digests_elsewhere(SwarmTask((1,), "none-such", Faults(), None))


def test_one_other_digest_is_told() -> None:
    assert differing({1: [4, 4, 4], 2: [4, 4, 5]}) == [2]


def test_all_bars_hold_when_all_is_well() -> None:
    assert failing(seeds_raw()) == []
    assert failing(seeds_raw(rates=rates(50))) == []


@pytest.mark.parametrize(
    ("change", "bar"),
    [
        ({"failures": [{"seed": 1}]}, "seeds of 400 that break a rule"),
        ({"seeds": 0, "real_seeds": 0}, "seeds run"),
        ({"never_reached": ["a state"]}, "interesting states never reached"),
        ({"real_seeds": 99}, "share of seeds with real wasm"),
        ({"selfcheck": {"0": [5, 5, 5, 6]}}, "of 1 seeds with traces that differ"),
        ({"lines": [{"file": "a.py", "all": 100, "covered": 84}]}, "line coverage"),
        ({"rates": rates(49)}, "rate beside the prototype's"),
    ],
)
def test_each_bar_can_fail(change: dict[str, Any], bar: str) -> None:
    assert failing(seeds_raw(**change)) == [bar]


def test_a_rate_that_some_rounds_do_not_bear_out_does_not_hold() -> None:
    assert failing(seeds_raw(rates=rounds_of(*[27, 28] * 10))) == []
    assert failing(seeds_raw(rates=rounds_of(*[8, 47] * 10))) == ["rate beside the prototype's"]


def test_bars_of_cancellations_and_of_programs_can_fail() -> None:
    site = {"in_clean_up": True, "once": True, "twice": True}
    raw = {
        "command": "sim cancel-everywhere",
        "scenario": "all",
        "options": {"seconds": None},
        "runs": 9,
        "left_out": 0,
        "failures": [],
        "sites": [site],
    }
    assert failing(raw) == []
    assert failing({**raw, "sites": [{**site, "twice": False}]}) == [
        "places of clean-ups cancelled at again"
    ]
    assert failing({**raw, "sites": [{**site, "once": False}]}) == ["places cancelled at"]
    assert failing({**raw, "left_out": 1}) == ["runs left out"]
    trial = {"command": "sim run --inferlet", "cases": [{"name": "x", "survived": False}]}
    assert failing(trial) == ["of 1 cases not survived"]


def test_the_script_of_the_bars_imports_nothing_of_ours() -> None:
    assert "import pie_trio" not in BARS.read_text("utf-8")
    assert "from pie_trio" not in BARS.read_text("utf-8")


def test_the_least_covered_files_are_told_first() -> None:
    coverage = LineCoverage((FileLines("a.py", 10, 9), FileLines("b.py", 50, 20)))
    assert coverage.share == pytest.approx(29 / 60)
    assert coverage.text().splitlines()[1] == "    30 of 50 lines never ran in b.py"


def test_lines_are_measured_for_as_long_as_there_is_time_and_the_rest_is_counted() -> None:
    coverage = measure(0, 30, seconds=0.0)
    assert coverage.runs == 0
    assert coverage.left_out == 30 + SEEDS_OF_A_SCENARIO * len(SCENARIOS)
    assert f"by 0 runs, {coverage.left_out} left out" in coverage.text()


def test_lines_are_not_measured_where_the_tool_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_coverage, "find_spec", lambda _name: None)
    with pytest.raises(BadConfig, match="pip install coverage"):
        measure(0, 1)


@pytest.mark.slow
def test_simulated_runs_execute_most_lines_of_the_product() -> None:
    coverage = measure(0, 30)
    names = {file.file for file in coverage.files}
    assert {"engine.py", "actors/model.py", "services/gateway/session.py"} <= names
    assert not any(name.startswith(prefix) for name in names for prefix in LEFT_OUT)
    assert coverage.share >= 0.85, coverage.text(20)
