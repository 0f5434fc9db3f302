"""The product itself, cancelled everywhere: its instances, connections, clients, and all at once.

Owns who can be a victim in a simulated world and how each is cancelled. A run is a run of the
simulator, so every rule and oracle of it is checked after the cancellation. What it promises: a
scenario, a victim's name and a handle name the same run in every process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from time import perf_counter
from types import MappingProxyType
from typing import Any, Final

import attrs
import trio

from pie_trio.actors.instance import Instance
from pie_trio.errors import BadConfig
from pie_trio.testing.await_sites import Site, sites_of
from pie_trio.testing.cancellation import Plan, Report, enumerate_runs
from pie_trio.testing.cancellation_probe import Cancellation, Probe, Run, Victim, is_below
from pie_trio.testing.faults import Fault
from pie_trio.testing.scenarios import Scenario, load_scenario
from pie_trio.testing.simulation import Simulation
from pie_trio.testing.world import World

INSTANCE: Final = "instance "
CONNECTION: Final = "Connection.run"
KINDS: Final = ("instance", "connection", "goodbye", "clients", "stop")
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
        "host-calls": (
            ("limits.tokenize_inline_bytes", 0, 16.0),
            ("limits.pages", 0, 120.0),
            ("limits.topic_messages", 0, 1.0),
        ),
        "outputs": (
            ("limits.outbox_bytes", 0, 900.0),
            ("limits.detached_output_bytes", 0, 900.0),
            ("limits.reply_bytes", 0, 500.0),
            ("limits.stream_bytes", 0, 256.0),
            ("limits.clients_max", 0, 2.0),
        ),
    }
)


@attrs.frozen
class Victims:
    """Where in a world a victim is found: a kind, and which of them, in the order of their birth.

    `instance`: it is terminated. `connection`: its time is up. `goodbye`: the server says goodbye
    to it. `clients`: whoever runs the scenario goes away. `stop`: the engine is stopped.
    """

    kind: str
    number: int = 0

    def __str__(self) -> str:
        return f"{self.kind} {self.number}" if self.kind in KINDS[:3] else self.kind

    @classmethod
    def parse(cls, text: str) -> Victims:
        kind, _, number = text.partition(" ")
        if kind not in KINDS or (number and not number.isdigit()):
            raise BadConfig(f"no victim {text!r}; there are {', '.join(KINDS)}, some with a number")
        return cls(kind, int(number or 0))


@attrs.define(eq=False)
class Census(trio.abc.Instrument):
    """Who has lived in a world: instances and connections, in the order of their birth."""

    instances: int = 0
    connections: list[trio.lowlevel.Task] = attrs.field(factory=list)
    stood: set[Site] = attrs.field(factory=set)  # where anybody waited

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        if task.name.startswith(INSTANCE):
            self.instances += 1
        elif task.name.endswith(CONNECTION):
            self.connections.append(task)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.stood.update(sites_of(task))

    def victims(self) -> Iterator[Victims]:
        for number in range(self.instances):
            yield Victims("instance", number)
        for number in range(len(self.connections)):
            yield Victims("connection", number)
            yield Victims("goodbye", number)
        yield Victims("clients")
        yield Victims("stop")


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
            census = Census()
            with trio.CancelScope() as scope:
                probe.victim = _victim(self.victims, world, census, scope)
                trio.lowlevel.add_instrument(census)
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
        trio.lowlevel.add_instrument(census)
        await scenario.run(world)

    faults = _faults(scenario, None)
    Simulation(seed, faults, attrs.evolve(scenario, run=watched), "shuffle").run()
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


def _victim(victims: Victims, world: World, census: Census, scope: trio.CancelScope) -> Victim:
    if victims.kind == "instance":
        return _instance(victims.number, world)
    if victims.kind in ("connection", "goodbye"):
        return _connection(victims, census)
    if victims.kind == "clients":
        task = trio.lowlevel.current_task()
        return Victim(lambda each: is_below(each, task), scope.cancel, _never)
    return Victim(lambda _task: True, world.stop, _never)


def _instance(number: int, world: World) -> Victim:
    name, found = f"{INSTANCE}{number}", list[Instance]()

    def instance() -> Instance:
        """Kept, because the engine may forget it when it has ended."""
        if not found:
            known = world.engine.instances()
            found.extend(each for each in known if each.owner.number == number)
        return found[0]

    def owns(task: trio.lowlevel.Task) -> bool:
        return _is_below_name(task, name) and bool(instance())

    return Victim(owns, lambda: instance().terminate(), lambda: found and instance().is_finished)


def _connection(victims: Victims, census: Census) -> Victim:
    def root() -> trio.lowlevel.Task | None:
        known = census.connections
        return known[victims.number] if victims.number < len(known) else None

    def connection() -> Any:
        task = root()
        frame = None if task is None else task.coro.cr_frame
        assert frame is not None, "a connection is cancelled only while it lives"
        return frame.f_locals["self"]

    def owns(task: trio.lowlevel.Task) -> bool:
        mine = root()
        return mine is not None and is_below(task, mine)

    def cancel() -> None:
        connection().stop() if victims.kind == "goodbye" else connection()._life.cancel()

    def is_gone() -> bool:
        mine = root()
        return mine is not None and mine.coro.cr_frame is None

    return Victim(owns, cancel, is_gone)


def _is_below_name(task: trio.lowlevel.Task, name: str) -> bool:
    current: trio.lowlevel.Task | None = task
    while current is not None and current.name != name:
        current = current.parent_nursery.parent_task if current.parent_nursery else None
    return current is not None


def _never() -> bool:
    return False
