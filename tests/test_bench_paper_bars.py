"""The bars of the evaluation, on made-up samples: missing, slow or too uncertain never holds."""

from __future__ import annotations

import ast
import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bars import paper
from benchmarks.bars.paper import bars
from benchmarks.paper.plots import plot, taxes_of
from benchmarks.paper.report import render

ROUNDS = 5
Record = dict[str, Any]


def cases() -> dict[tuple[str, str, str], float]:
    """A run in which every bar just holds."""
    found = {}
    for kind, count, goal in paper.TAX_GOALS:
        found["table4", f"{kind} {count}", "period"] = 0.1 * (1 + 0.99 * goal)
        found["table4", f"{kind} {count}", "cpu"] = 0.1 * 0.0099
        found["table4", f"{kind} {count}", "before"] = 0.09
        found["table4", f"{kind} {count}", "after"] = 0.11
        for name in ("inside", "link", "between"):
            found["table4", f"{kind} {count}", name] = 0.001
    for agent, goal in paper.AGENT_GOALS.items():
        anew = {"inferlet": 0.99 * goal, "anew": 1.0, "cached": 0.99 * goal + 7 * 0.04}
        for way, seconds in anew.items():
            case = f"{way} 40 ms"
            found[f"fig6-{agent}", case, "latency"] = seconds
            found[f"fig6-{agent}", case, "trips"] = 1 if way == "inferlet" else 8
            found[f"fig6-{agent}", case, "trip"] = 0.04
    found |= {("fig7", "all three", "rate"): 3.6, ("fig7", "anew", "rate"): 1.0}
    for place in ("model", "real"):
        found["table5", f"{place} work-conserving", "rate"] = 16.0
        found["table5", f"{place} eager", "rate"] = 1.0
        found["table5", f"{place} k-only k=8", "rate"] = 5.0
        found["table5", f"{place} k-only k=64", "rate"] = 4.0
        found["table5", f"{place} t-only t=4 ms", "rate"] = 14.0
    for technique, ways, goal in paper.SHAPE_OF_FIG8:
        found["fig8", f"{technique} inferlet", "latency"] = 0.99 * goal
        found |= {("fig8", f"{technique} {way}", "latency"): 1.0 for way in ways}
    for case in ("free 1", "schema 1"):
        found |= {("constraint", case, "inside"): 0.01, ("constraint", case, "step"): 0.011}
    for section, kinds in (("fig9", ("warm", "cold")), ("fig10", ("control", "inference"))):
        for case in (f"{kind} {count}" for kind in kinds for count in (1, 8)):
            found |= {(section, case, "median"): 0.001, (section, case, "worst"): 0.002}
    return found


def made_up() -> Record:
    samples = [
        {"section": section, "case": case, "measure": measure, "round": turn, "value": value}
        for turn in range(1, ROUNDS + 1)
        for (section, case, measure), value in cases().items()
    ]
    fit = {"step_seconds": 0.01, "row_seconds": 0.001, "most_against_eager": 10.2}
    fit |= {"off_by_at_most": 0.1, "instances": 128}
    return {"samples": samples, "facts": {"fit": fit, "reasons": {}}, "runs": {}}


def with_samples(change: Any) -> Record:
    """The same run, each sample as `change` returns it; None leaves it out."""
    record = copy.deepcopy(made_up())
    record["samples"] = [new for each in record["samples"] if (new := change(each)) is not None]
    return record


def failing(record: Record) -> set[str]:
    return {bar["name"] for bar in bars(record) if not bar["holds"]}


def test_a_run_that_reaches_everything_holds() -> None:
    assert failing(made_up()) == set()


@pytest.mark.parametrize(
    ("section", "case", "hanging"),
    [
        ("table4", "fused C 32", 2),
        ("table4", "by passes C 1", 1),
        ("fig6-swarm", "anew 40 ms", 1),
        ("fig6-swarm", "inferlet 40 ms", 2),
        ("fig7", "anew", 1),
        ("table5", "model work-conserving", 3),
        ("table5", "real eager", 1),
        ("fig8", "prefix-tree anew", 1),
        ("fig8", "beam-search inferlet", 1),
    ],
)
def test_what_hangs_on_a_missing_case_does_not_hold(section: str, case: str, hanging: int) -> None:
    def leave_out(sample: Record) -> Record | None:
        return None if (sample["section"], sample["case"]) == (section, case) else sample

    record = with_samples(leave_out)
    missing = failing(record)
    assert len(missing) == hanging
    values = {bar["name"]: bar["value"] for bar in bars(record)}
    assert all(values[name] is None for name in missing)


def test_every_bar_misses_something_in_an_empty_run() -> None:
    empty = bars({"samples": []})
    assert len(empty) == len(bars(made_up()))
    assert {bar["verdict"] for bar in empty} == {"missing"}


def test_a_goal_between_the_bounds_is_not_resolved_and_does_not_hold() -> None:
    def disturb(sample: Record) -> Record:
        is_it = (sample["section"], sample["case"]) == ("fig7", "all three")
        return {**sample, "value": 3.0} if is_it and sample["round"] in (2, 4) else sample

    [bar] = [bar for bar in bars(with_samples(disturb)) if bar["name"].startswith("stacked")]
    assert bar["value"] > bar["goal"]
    assert (bar["verdict"], bar["holds"]) == ("not resolved", False)


def test_two_rounds_resolve_nothing() -> None:
    record = with_samples(lambda sample: sample if sample["round"] <= 2 else None)
    assert {bar["verdict"] for bar in bars(record)} == {"not resolved"}


def test_a_policy_is_held_against_the_best_of_its_parameters() -> None:
    def better(sample: Record) -> Record:
        is_it = sample["case"] == "model k-only k=64"
        return {**sample, "value": 8.0} if is_it else sample

    assert failing(with_samples(better)) == {"work-conserving, fitted model: ratio to k-only"}


def test_a_technique_is_held_against_the_faster_of_other_engines() -> None:
    def faster(sample: Record) -> Record:
        is_it = sample["case"] == "constrained-decoding OpenVINO"
        return {**sample, "value": 0.5} if is_it else sample

    name = "constrained-decoding: latency, ratio to the fastest other engine"
    assert failing(with_samples(faster)) == {name}


def test_the_bar_against_eager_tells_how_far_any_policy_could_come() -> None:
    told = {bar["name"]: bar["ceiling"] for bar in bars(made_up()) if "ceiling" in bar}
    assert told == {"work-conserving, fitted model: ratio to eager": 10.2}


def test_the_ideal_is_the_cached_baseline_without_its_round_trips() -> None:
    def slower(sample: Record) -> Record:
        is_it = sample["case"] == "inferlet 40 ms" and sample["measure"] == "latency"
        return {**sample, "value": sample["value"] + 0.05} if is_it else sample

    beyond = {name for name in failing(with_samples(slower)) if "ideal" in name}
    assert len(beyond) == len(paper.AGENT_GOALS)


def test_the_report_names_every_bar_and_every_section() -> None:
    record = made_up()
    record["bars"] = bars(record)
    text = render(record)
    assert all(bar["name"] in text for bar in record["bars"])
    for title in (
        "Table 3",
        "Table 4",
        "Table 5",
        "Figure 6",
        "Figure 7",
        "Figure 8",
        "constraint",
    ):
        assert title in text


def test_the_report_tells_how_many_tokens_each_side_has_written() -> None:
    record = made_up()
    for way, count in (("inferlet", 96), ("anew", 32), ("OpenVINO", 8)):
        told = {"section": "fig8", "case": f"beam-search {way}", "measure": "tokens"}
        record["samples"].append({**told, "round": 1, "value": count})
    [line] = [line for line in render({**record, "bars": []}).splitlines() if "| beam-sea" in line]
    assert "| 96 / 32 / - / - / 8 |" in line


def test_taxes_are_drawn_from_few_to_many_whatever_was_measured_first() -> None:
    record = made_up()
    record["samples"].reverse()
    sizes = [int(label.split()[-1]) for label, *_ in taxes_of(record) if "paper" not in label]
    assert len(sizes) > 2
    assert sizes == sorted(sizes)


def test_what_was_measured_is_drawn_and_nothing_else(tmp_path: Path) -> None:
    plot(made_up(), tmp_path / "all")
    names = {path.name for path in (tmp_path / "all").glob("*.png")}
    tables = ("table4", "table5", "constraint")
    assert names == {f"{name}.png" for name in (*tables, *(f"fig{n}" for n in range(6, 11)))}
    plot(with_samples(lambda each: each if each["section"] == "fig7" else None), tmp_path / "one")
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["fig7.png"]


def test_the_script_computes_the_same_bars_and_imports_nothing_of_ours(tmp_path: Path) -> None:
    path = Path(paper.__file__)
    tree = ast.parse(path.read_text("utf-8"))
    imported = {
        alias.name if isinstance(node, ast.Import) else str(node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert not [name for name in imported if name.startswith(("pie_trio", "benchmarks", "gpu_"))]
    file = tmp_path / "run.json"
    file.write_text(json.dumps(made_up()), "utf-8")
    ended = subprocess.run(
        [sys.executable, str(path), str(file)], capture_output=True, text=True, check=True
    )
    assert [json.loads(line) for line in ended.stdout.splitlines()] == bars(made_up())
