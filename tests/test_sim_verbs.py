"""`pie-trio sim` as a person uses it: what is told, which code ends it, and that it is so."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.support.command import pie, start

BROKEN_SCENARIO = """
async def scenario(world):
    value = await world.run("sim-decode", 1, 5, 4)
    if value is None:
        raise ValueError("the guest had no value")
"""


def failing(folder: Path) -> tuple[str, ...]:
    """Options of a run that fails whenever its worker dies in time."""
    path = folder / "mine.py"
    path.write_text(BROKEN_SCENARIO, "utf-8")
    return ("--scenario", str(path), "--faults", "worker")


def failing_run(folder: Path) -> tuple[subprocess.CompletedProcess[str], str]:
    """A run of seeds of which one fails, and the command that it printed."""
    ended = pie(folder, "sim", "run", "--seeds", "0..30", "--processes", "1", *failing(folder))
    assert ended.returncode == 5, ended.stderr
    command = re.search(r"replay +pie-trio (.*)", ended.stdout)
    assert command is not None, ended.stdout
    return ended, command.group(1)


def test_seeds_that_hold_end_with_success_and_bars(tmp_path: Path) -> None:
    path = tmp_path / "bars.json"
    flags = ("--seeds", "0..12", "--scenario", "decode", "--json", str(path))
    ended = pie(tmp_path, "sim", "run", *flags)
    assert ended.returncode == 0, ended.stdout
    assert "12 seeds (0 with real wasm)" in ended.stdout
    assert "every rule held" in ended.stdout
    raw = json.loads(path.read_text())
    assert raw["seeds"] == 12
    assert raw["bars"][0] == {
        "name": "seeds of 12 that break a rule",
        "value": 0,
        "goal": "== 0",
        "holds": True,
    }
    assert "1 of them again, in 3 processes with other hash seeds: 0 differ" in ended.stdout
    assert len(set(raw["selfcheck"]["0"])) == 1


def test_a_run_without_time_for_any_seed_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "bars.json"
    ended = pie(tmp_path, "sim", "run", "--seconds", "0", "--json", str(path))
    assert ended.returncode == 5, ended.stderr
    assert "no seed was run" in ended.stdout
    bars = {bar["name"]: bar["holds"] for bar in json.loads(path.read_text())["bars"]}
    assert not bars["seeds run"]


def test_a_failure_tells_all_that_is_needed_to_see_it_again(tmp_path: Path) -> None:
    ended, command = failing_run(tmp_path)
    block = ended.stdout[ended.stdout.index("seed ") :].partition("replay")[0].splitlines()
    for name in ("version", "run", "faults", "limits", "violated"):
        assert any(line.strip().startswith(name) for line in block), f"{name} is missing"
    events = [line for line in block if re.match(r" +\d+\.\d{4} ", line)]
    assert 1 <= len(events) <= 15
    assert any("the scenario saw ValueError" in line for line in block)
    again = pie(tmp_path, *shlex.split(command))
    assert again.returncode == 5
    assert [line for line in again.stdout.splitlines() if line.strip().startswith("violated")] == [
        line for line in block if line.strip().startswith("violated")
    ]


def test_a_failing_seed_is_made_smaller_and_its_command_fails_in_the_same_way(
    tmp_path: Path,
) -> None:
    _, command = failing_run(tmp_path)
    words = shlex.split(command)
    assert words[:2] == ["sim", "replay"]
    smaller = pie(tmp_path, "sim", "minimise", *words[2:])
    assert smaller.returncode == 5
    assert re.search(r"\d+ faults and \d+ decisions became [12] and \d+", smaller.stdout)
    least = re.search(r"replay +pie-trio (.*)", smaller.stdout)
    assert least is not None
    assert "--only" in least.group(1)
    again = pie(tmp_path, *shlex.split(least.group(1)))
    assert again.returncode == 5
    assert "the scenario saw ValueError" in again.stdout


def test_a_seed_that_holds_is_not_made_smaller(tmp_path: Path) -> None:
    ended = pie(tmp_path, "sim", "minimise", "0", "--scenario", "keys", "--faults", "none")
    assert ended.returncode == 0
    assert "nothing to make smaller" in ended.stderr


def test_replay_shows_as_many_events_as_are_asked_for(tmp_path: Path) -> None:
    flags = ("sim", "replay", "3", "--scenario", "keys", "--faults", "none")
    whole = pie(tmp_path, *flags)
    assert whole.returncode == 0, whole.stdout
    cut = pie(tmp_path, *flags, "--until", "4")
    assert cut.stdout.splitlines() == whole.stdout.splitlines()[:4]
    assert "more events are not shown" in cut.stderr


def test_replay_in_steps_waits_for_enter_after_each_event(tmp_path: Path) -> None:
    process = start(tmp_path, "sim", "replay", "3", "--scenario", "keys", "--step")
    out, _ = process.communicate(timeout=120)  # stdin is empty: it goes on to the end
    stepped = pie(tmp_path, "sim", "replay", "3", "--scenario", "keys", "--step", typed="\n" * 500)
    assert stepped.stdout == out
    assert stepped.returncode == process.returncode


def test_explain_writes_one_page_that_needs_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "run.html"
    ended = pie(tmp_path, "sim", "explain", "5", "--scenario", "decode", "-o", str(page))
    assert ended.returncode == 0, ended.stdout
    text = page.read_text("utf-8")
    assert not re.search(r"https?:|src=|href=|@import|url\(", text)
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    drawn = json.loads(data.group(1))
    assert len(drawn["times"]) == len(drawn["events"]) > 10
    groups = {lane["group"] for lane in drawn["lanes"]}
    assert {"clients", "instances", "model pretend"} <= groups
    names = {lane["name"] for lane in drawn["lanes"] if lane["group"] == "model pretend"}
    assert {"worker", "batches", "executing", "pages in use"} <= names


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("run", "--seeds", "x"), "neither a number nor FROM..TO"),
        (("run", "--seeds", "5..5"), "names no seed"),
        (("run", "--scheduler", "fast"), "there are shuffle, walk, pct"),
        (("run", "--faults", "rain"), "no such kind of fault: rain"),
        (("run", "--scenario", "none-such"), "no scenario 'none-such'"),
        (("run", "--scenario", "none-such.py"), "there is no file none-such.py"),
        (("run", "--scenario", "torn.py"), "torn.py cannot be loaded: SyntaxError"),
        (("run", "--scenario", "empty.py"), "has no `async def scenario(world)`"),
        (("run", "--rate-beside", "nowhere"), "nowhere has no sim.py"),
        (("run", "--json", "nowhere/x.json"), "cannot be written"),
        (("run", "--case", "cancelled/call 1"), "--case says nothing without --inferlet"),
        (("run", "stray"), "ARGS says nothing without --inferlet"),
        (("run", "--inferlet", "kvs", "--faults", "kill"), "--faults says nothing with --inferlet"),
        (("run", "--inferlet", "kvs", "--explain", "x"), "--explain says nothing without --case"),
        (("replay", "1", "--only", "x"), "no list of numbers"),
        (("replay", "1", "--only", "99"), "seed 1 draws no fault 99; it draws "),
        (("replay", "1", "--decisions", "-4"), "greater than or equal to 0"),
        (("explain", "1", "-o", "nowhere/x.html"), "cannot be written"),
        (("cancel-everywhere", "--scenario", "keys", "--victim", "stop"), "without --handle"),
        (("mutants", "no_pinn"), "there is no mutant 'no_pinn'; there are no_pin"),
        (("cancel-everywhere", "--scenario", "keys", "--handle", "x"), "names no cancellation"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    arguments: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    (tmp_path / "torn.py").write_text("async def scenario(world: pass\n", "utf-8")
    (tmp_path / "empty.py").write_text("", "utf-8")
    files = {path.name: str(path) for path in tmp_path.iterdir()}
    ended = pie(tmp_path, "sim", *(files.get(each, each) for each in arguments))
    assert ended.returncode == 2, ended.stderr
    assert told in ended.stderr
    assert "running" not in ended.stderr
    assert "Traceback" not in ended.stderr


def test_whoever_lives_in_a_scenario_is_cancelled_and_the_places_are_told(tmp_path: Path) -> None:
    path = tmp_path / "bars.json"
    flags = ("--scenario", "keys", "--seconds", "2", "--json", str(path))
    ended = pie(tmp_path, "sim", "cancel-everywhere", *flags)
    assert ended.returncode == 0, ended.stdout
    assert re.search(r"cancelled at \d+ of \d+ places", ended.stdout)
    raw = json.loads(path.read_text())
    assert all(bar["holds"] for bar in raw["bars"])
    assert any(site["once"] for site in raw["sites"])


def test_one_cancellation_is_run_again_by_its_handle(tmp_path: Path) -> None:
    flags = ("--scenario", "keys", "--victim", "instance 0", "--handle", "3")
    ended = pie(tmp_path, "sim", "cancel-everywhere", *flags)
    assert ended.returncode == 0, ended.stdout
    assert ended.stdout.startswith("3 at ")


def test_a_program_is_tried_under_every_fault(tmp_path: Path) -> None:
    path = tmp_path / "bars.json"
    flags = ("--inferlet", "kvs", "--json", str(path))
    ended = pie(tmp_path, "sim", "run", *flags)
    assert ended.returncode == 0, ended.stdout
    assert re.search(r"ended by name cancelled +\d+ ended with Terminated", ended.stdout)
    cases = json.loads(path.read_text())["cases"]
    assert {case["kind"] for case in cases} == {"client gone", "cancelled"}


def test_one_case_of_a_program_is_told_and_drawn(tmp_path: Path) -> None:
    page = tmp_path / "case.html"
    case = ("--case", "worker lost/before batch 2", "--explain", str(page))
    flags = ("--inferlet", "text-completion", *case, "--", "--prompt", "a", "--max-tokens", "3")
    ended = pie(tmp_path, "sim", "run", *flags)
    assert ended.returncode == 0, ended.stdout
    assert "it was ended by name: WorkerLost" in ended.stdout
    assert "call 1: inferlet:core/runtime#get-arguments" in page.read_text("utf-8")
    wrong = pie(tmp_path, "sim", "run", "--inferlet", "kvs", "--case", "cancelled/never")
    assert wrong.returncode == 2
    assert "cancelled/call 1, " in wrong.stderr


def test_a_mutant_that_nobody_knows_is_refused_with_the_names_of_those_there_are(
    tmp_path: Path,
) -> None:
    ended = pie(tmp_path, "sim", "mutants", "none_such")
    assert ended.returncode == 2
    assert "there is no mutant 'none_such'; there are " in ended.stderr
