"""The rate of the scripted profile beside another simulator's: both sides, in turns, as samples."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from pie_trio.errors import BadConfig
from pie_trio.events import BatchDispatched
from pie_trio.testing.rates import SEEDS_A_ROUND, SIDES, MeasureBroken, measure_rates
from pie_trio.testing.scheduler import virtual_clock
from pie_trio.testing.simulation import Simulation
from tests.support.command import pie

OTHER = """
class Worker:
    batches = [["a", "b"], ["a"]]


class Simulation:
    steps = 7
    worker = Worker()

    def __init__(self, seed, faults, mode):
        assert faults is None and mode in ("shuffle", "walk", "pct")
        self.bad = {bad}

    def run(self):
        return self
"""


def other(folder: Path, bad: str = "[]") -> Path:
    (folder / "sim.py").write_text(OTHER.format(bad=bad), "utf-8")
    return folder


def test_both_sides_are_measured_over_the_same_seeds(tmp_path: Path) -> None:
    rates = measure_rates(other(tmp_path), rounds=2)
    for side in SIDES:
        assert [sample["scenarios"] for sample in rates.samples[side]] == [SEEDS_A_ROUND] * 2
        assert all(sample["seconds"] > 0 for sample in rates.samples[side])
    assert rates.per_scenario("prototype", "steps") == 7
    assert rates.per_scenario("prototype", "passes") == 3
    assert rates.per_scenario("scripted", "passes") > 10
    assert "scenarios beside the prototype's" in rates.text()


def test_a_side_that_breaks_its_own_rules_has_no_rate(tmp_path: Path) -> None:
    with pytest.raises(MeasureBroken, match="a leak"):
        measure_rates(other(tmp_path, "['a leak']"), rounds=1)


def test_a_folder_without_a_simulator_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"no sim\.py"):
        measure_rates(tmp_path)
    told = pie(tmp_path, "sim", "run", "--seeds", "0", "--rate-beside", str(tmp_path))
    assert (told.returncode, "no sim.py" in told.stderr) == (2, True), told.stderr


def test_a_run_of_the_profile_has_thirty_passes_and_no_connection() -> None:
    outcome = Simulation(3, (), "scripted").run()
    assert outcome.violations == ()
    batches = [event for event in outcome.timeline if isinstance(event, BatchDispatched)]
    assert sum(batch.passes for batch in batches) == 30
    assert len(outcome.launches) == 6
    assert all(launch.value is not None for launch in outcome.launches)


def test_a_virtual_clock_moves_to_the_next_deadline_and_by_nothing_else() -> None:
    async def main() -> list[float]:
        moments = [trio.current_time()]
        for _ in range(100):
            await trio.lowlevel.checkpoint()
        moments.append(trio.current_time())
        await trio.sleep(3600)
        moments.append(trio.current_time())
        with trio.move_on_after(0.25):
            await trio.sleep_forever()
        return [*moments, trio.current_time()]

    assert trio.run(main, clock=virtual_clock()) == [0.0, 0.0, 3600.0, 3600.25]
