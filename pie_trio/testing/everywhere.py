"""The product itself, cancelled everywhere: its instances, connections, clients, and all at once.

Owns the faults that a scenario needs to make everybody wait, and those that may strike beside a
cancellation. A run is a run of the simulator, so every rule and oracle of it is checked after the
cancellation. What it promises: a scenario, a victim's name and a handle name the same run in every
process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter
from types import MappingProxyType
from typing import Final

import attrs
import trio

from pie_trio.errors import BadConfig
from pie_trio.testing.cancellation import Plan, Report, enumerate_runs
from pie_trio.testing.cancellation_probe import Cancellation, Probe, Run
from pie_trio.testing.faults import Fault
from pie_trio.testing.scenarios import Scenario, load_scenario
from pie_trio.testing.simulation import Simulation
from pie_trio.testing.victims import KINDS, Births, Census, Victims, victim_in
from pie_trio.testing.world import World

__all__ = [
    "BACKGROUND",
    "Everywhere",
    "Victims",
    "cancel_scenario",
    "census_of",
    "replay_cancellation",
]

# One background fault each: its point, and at which passing it strikes.
BACKGROUND: Final = (
    ("worker.crash-before", 1),
    ("worker.crash-after", 1),
    ("worker.slow", 1),
    ("worker.pass-fails", 1),
    ("link.drop", 3),
    ("link.delay", 3),
    ("link.duplicate", 3),
    ("link.busy", 2),
    ("net.dribble", 0),
    ("net.disconnect", 20),
    ("net.delay", 10),
    ("memory.hog", 0),
)
# What a reference scenario needs of its world, as faults that always strike in it.
OWN_FAULTS: Final[Mapping[str, tuple[tuple[str, int, float], ...]]] = MappingProxyType(
    {
        # The worker's socket takes each message only when it is asked again.
        "first-uses": (
            ("worker.crash-before", 0, 0.0),
            *(("link.busy", passing, 0.01) for passing in range(0, 80, 2)),
        ),
        "crowds": (
            ("limits.mailbox", 0, 1.0),
            ("limits.passes_waiting_max", 0, 1.0),
            ("limits.pass_values_waiting", 0, 1500.0),
        ),
        "families": (("limits.child_mailbox_bytes", 0, 100.0),),
        "host-calls": (
            ("limits.tokenize_inline_bytes", 0, 16.0),
            ("limits.pages", 0, 120.0),
            ("limits.topic_messages", 0, 1.0),
            ("worker.slow", 0, 0.1),
            ("worker.slow", 1, 0.1),
        ),
        "outputs": (
            ("limits.outbox_bytes", 0, 900.0),
            ("limits.detached_output_bytes", 0, 900.0),
            ("limits.reply_bytes", 0, 500.0),
            ("limits.stream_bytes", 0, 256.0),
            ("limits.clients_max", 0, 2.0),
            ("net.deaf", 40, 0.08),
        ),
    }
)


@attrs.frozen(eq=False)
class Everywhere:
    """One scenario and one victim: runs of the simulator with a probe in them."""

    scenario: Scenario
    victims: Victims
    seed: int = 0

    def run(self, cancellation: Cancellation) -> Run:
        run = Run(cancellation)

        async def cancelled(world: World) -> None:
            probe = Probe(run, world.stop)
            births = Births()
            with trio.CancelScope() as scope:
                probe.victim = victim_in(self.victims, world, births, scope)
                trio.lowlevel.add_instrument(births)
                trio.lowlevel.add_instrument(probe)
                try:
                    await self.scenario.run(world)
                finally:
                    if self.victims.kind == "clients":
                        probe.victim = None

        faults = _faults(self.scenario, cancellation.fault)
        scenario = attrs.evolve(self.scenario, run=cancelled)
        outcome = Simulation(self.seed, faults, scenario, "shuffle").run()
        run.wrong.extend(outcome.violations)
        if self.victims.kind == "stop":
            run.clean_up_steps = 0  # there is nothing around the engine to cancel a second time
        return run

    def text(self, run: Run) -> str:
        return f"{self.scenario.name}, {self.victims}: {run}"


def census_of(scenario: Scenario, seed: int = 0) -> Census:
    """Who lives in the scenario when nobody is cancelled."""
    census = Census()

    async def watched(world: World) -> None:
        census.scenario_task = trio.lowlevel.current_task()
        trio.lowlevel.add_instrument(census)
        await scenario.run(world)

    faults = _faults(scenario, None)
    outcome = Simulation(seed, faults, attrs.evolve(scenario, run=watched), "shuffle").run()
    census.wrong.extend(outcome.violations)
    return census


def cancel_scenario(
    name: str,
    *,
    kinds: Sequence[str] = KINDS,
    faults: Sequence[str] | None = None,
    plan: Plan | None = None,
    seed: int = 0,
) -> Report:
    """Each victim of a scenario at each of its places; `faults` by their points, all of them: None.

    `plan.seconds` is for all victims together.
    """
    scenario, plan, began = load_scenario(name), plan or Plan(faults=False), perf_counter()
    beside = [point for point, _at in BACKGROUND] if faults is None else list(faults)
    total = Report(name)
    for victims in census_of(scenario, seed).victims():
        if victims.kind not in kinds:
            continue
        everywhere = Everywhere(scenario, victims, seed)
        left = None if plan.seconds is None else plan.seconds - (perf_counter() - began)
        mine = attrs.evolve(plan, seconds=left)
        total.merge(enumerate_runs(f"{name}, {victims}", everywhere.run, beside, mine))
    return total


def replay_cancellation(name: str, victim: str, handle: str, seed: int = 0) -> Run:
    """One run, by what a report says of it."""
    everywhere = Everywhere(load_scenario(name), Victims.parse(victim), seed)
    return everywhere.run(Cancellation.parse(handle))


def _faults(scenario: Scenario, beside: str | None) -> tuple[Fault, ...]:
    """Those that the scenario always has, and the one in the background."""
    planned = list(OWN_FAULTS.get(scenario.name, ()))
    if beside is not None:
        at = dict(BACKGROUND).get(beside)
        if at is None:
            raise BadConfig(f"no background fault {beside!r}")
        planned.append((beside, at, 0.5))
    return tuple(Fault(number, *each) for number, each in enumerate(planned))
