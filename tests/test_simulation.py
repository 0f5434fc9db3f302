"""The simulator itself: one seed is one run, everywhere; faults can be left out; it judges."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

import pie_trio
from pie_trio.errors import BadConfig
from pie_trio.services.page_pool import PagePool
from pie_trio.testing.faults import KINDS, Fault, FaultPlan, Faults, only
from pie_trio.testing.minimise import fewer_faults, minimise, shorter
from pie_trio.testing.scenarios import SCENARIOS, Scenario, load_scenario
from pie_trio.testing.simulation import Outcome, Simulation
from pie_trio.testing.swarm import GROUNDS, INTERESTING, run_seeds, scenario_of
from pie_trio.testing.timeline import FaultStruck
from pie_trio.testing.world import World

SEEDS = range(12)
DIGESTS = """
import json, sys
from pie_trio.testing.simulation import Simulation
from pie_trio.testing.swarm import scenario_of
print(json.dumps([Simulation(seed, None, scenario_of(seed)).run().digest for seed in range(12)]))
"""


def run(seed: int, **options: object) -> Outcome:
    return Simulation(seed, **options).run()  # type: ignore[arg-type]


def test_the_same_seed_gives_the_same_run_in_processes_with_other_hash_seeds() -> None:
    mine = [run(seed, scenario=scenario_of(seed)).digest for seed in SEEDS]
    source = str(Path(pie_trio.__file__).parents[1])
    for hash_seed in ("0", "1", "77"):
        done = subprocess.run(
            [sys.executable, "-c", DIGESTS],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": source},
            capture_output=True,
            check=True,
        )
        assert json.loads(done.stdout) == mine
    assert len(set(mine)) == len(mine)


@pytest.mark.parametrize("mode", ["shuffle", "walk", "pct"])
def test_recorded_picks_play_the_same_run_again(mode: str) -> None:
    first = run(3, scheduler=mode)
    assert first.picks
    again = run(3, scheduler=mode, picks=first.picks)
    assert again.digest == first.digest
    assert run(3, scheduler=mode, picks=()).digest != first.digest


@pytest.mark.parametrize(
    "name",
    [
        # The interpreter is compiled for counted slices first, once on each machine.
        pytest.param(name, marks=pytest.mark.slow) if name == "python" else name
        for name in sorted(SCENARIOS)
    ],
)
def test_every_scenario_keeps_every_rule_without_faults_and_ends_its_work(name: str) -> None:
    outcome = run(1, faults=(), scenario=name)
    assert outcome.violations == ()
    assert outcome.steps > 100
    assert outcome.fired == ()


def test_the_faults_of_a_seed_are_numbered_and_can_be_left_out() -> None:
    drawn = Faults().draw(11)
    assert [fault.number for fault in drawn] == list(range(len(drawn)))
    assert Faults().draw(11) == drawn
    assert only(drawn, [0]) == drawn[:1]
    kinds = {fault.kind for seed in range(300) for fault in Faults().draw(seed)}
    assert kinds == set(KINDS)
    assert {f.kind for s in range(99) for f in Faults.parse("net, kill").draw(s)} == {"net", "kill"}
    assert Faults.parse("none").draw(5) == ()
    with pytest.raises(BadConfig, match="no such kind of fault: gremlins"):
        Faults.parse("worker,gremlins")


def test_a_fault_strikes_once_at_its_passing_and_never_when_disarmed() -> None:
    struck: list[Fault] = []
    plan = FaultPlan((Fault(0, "net.delay", 1), Fault(1, "net.delay", 3)), struck.append)
    assert [bool(plan.strikes("net.delay")) for _ in range(3)] == [False, True, False]
    plan.disarm()
    assert plan.strikes("net.delay") is None
    assert struck == plan.fired == [Fault(0, "net.delay", 1)]


def test_a_worker_that_crashes_shows_in_the_run_and_breaks_no_rule() -> None:
    crash = Fault(0, "worker.crash-before", 1)
    outcome = run(2, faults=[crash], scenario="decode")
    assert outcome.violations == ()
    assert outcome.fired == (crash,)
    assert any(isinstance(event, FaultStruck) for event in outcome.timeline)
    assert outcome.reached["an instance ends with WorkerLost"]


def test_a_page_that_is_kept_from_the_pool_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    bury = PagePool.bury

    def forgetful(pool: PagePool, tenancy: object) -> None:
        bury(pool, tenancy)  # type: ignore[arg-type]
        if len(pool._free) == pool.capacity:
            pool._free.pop()

    monkeypatch.setattr(PagePool, "bury", forgetful)
    outcome = run(1, faults=[Fault(0, "net.delay", 3)], scenario="decode")
    assert "page conservation" in outcome.violations
    smallest = minimise(outcome)
    assert smallest.violations[0] == outcome.violations[0]
    assert smallest.faults == ()


def test_a_scenario_that_waits_for_ever_and_one_that_falls_are_told() -> None:
    async def stuck(_world: World) -> None:
        await trio.sleep_forever()

    async def falls(_world: World) -> None:
        raise ZeroDivisionError

    assert run(1, faults=(), scenario=Scenario("stuck", stuck)).violations == (
        "liveness: the scenario is stuck",
    )
    (fell,) = run(1, faults=(), scenario=Scenario("falls", falls)).violations
    assert "ZeroDivisionError" in fell


def test_an_async_function_is_a_scenario_and_another_one_is_refused() -> None:
    async def sharing(world: World) -> None:
        await world.run("sim-decode", 1, 4, 3)

    outcome = run(4, faults="worker,kill", scenario=sharing)
    assert outcome.scenario == "sharing"
    assert {fault.kind for fault in outcome.faults} <= {"worker", "kill"}
    assert outcome.digest == run(4, faults="worker,kill", scenario=sharing).digest
    for wrong in (lambda _world: None, 7):
        with pytest.raises(BadConfig, match="a scenario is a name or an `async def`"):
            run(4, scenario=wrong)


def test_a_file_with_a_scenario_is_one_and_others_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("async def scenario(world):\n    await world.run('sim-decode', 1, 4, 3)\n")
    outcome = run(4, scenario=str(file))
    assert outcome.scenario == "mine"
    assert outcome.violations == ()
    with pytest.raises(BadConfig, match="no scenario 'nowhere'"):
        load_scenario("nowhere")
    file.write_text("x = 1\n")
    with pytest.raises(BadConfig, match="has no `async def scenario"):
        load_scenario(str(file))


def test_a_swarm_plays_more_than_the_mix_and_real_components_in_a_quarter_of_its_seeds() -> None:
    played = [scenario_of(seed) for seed in range(400)]
    assert set(played) == {"mixed", "real", *GROUNDS}
    assert played.count("real") > 100
    assert min(played.count(ground) for ground in GROUNDS) >= 10


def test_fewer_faults_and_a_shorter_prefix_are_found() -> None:
    assert sorted(fewer_faults(list(range(9)), lambda kept: {2, 7} <= set(kept))) == [2, 7]
    assert fewer_faults(list(range(9)), lambda _kept: True) == []
    assert shorter(100, lambda length: length >= 13) == 13


@pytest.mark.slow
def test_a_swarm_of_seeds_breaks_no_rule_and_runs_real_components() -> None:
    report = run_seeds(range(60), processes=1)
    assert [failure.violations for failure in report.failures] == []
    assert report.seeds == 60
    assert report.real_seeds >= 15
    assert report.fired > 60
    assert len(report.fired_points) > 15
    assert sum(report.reached[state] > 0 for state in INTERESTING) > 6
    assert report.missing == ()
