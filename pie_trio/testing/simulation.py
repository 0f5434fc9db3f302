"""One simulated run of the whole product, from one seed: engine, gateway, clients, workers, faults.

`Simulation(seed).run()` builds a fresh world on a virtual clock, lets a scenario happen in it while
faults strike, then stops the faults and waits for everything to come to rest, and judges. The same
seed gives the same run in every process. Nothing is left of it afterwards but its `Outcome`.

    outcome = Simulation(7, "worker,kill", "sharing").run()
    assert not outcome.violations, outcome.violations
    again = Simulation(7, only=[2, 5], picks=outcome.picks[:40]).run()
"""

from __future__ import annotations

import gc
import random
import uuid
from collections import Counter
from collections.abc import Collection, Sequence
from functools import partial

import attrs
import trio

from pie_trio.engine import Engine, open_engine
from pie_trio.errors import WorkerLost
from pie_trio.events import Event
from pie_trio.messages import Owner
from pie_trio.ports import Ports, RandomStreams
from pie_trio.services.gateway import serve_gateway
from pie_trio.testing.disturbances import open_disturbances
from pie_trio.testing.faults import Fault, FaultPlan, Faults, only
from pie_trio.testing.guests import script_loader
from pie_trio.testing.inside import InsideWorld
from pie_trio.testing.invariants import Watch
from pie_trio.testing.knobs import WorldSettings, world_settings
from pie_trio.testing.oracles import at_rest, client_rules, engine_rules, outside_rules
from pie_trio.testing.outcome import Outcome
from pie_trio.testing.promises import Promises
from pie_trio.testing.scenarios import Scenario, ScenarioFunction, scenario_of_any
from pie_trio.testing.scheduler import MODES, Mode, Scheduler, in_control, virtual_clock
from pie_trio.testing.scripts import SCRIPTS
from pie_trio.testing.sim_net import SimListener
from pie_trio.testing.sim_web import SimWeb
from pie_trio.testing.sim_worker import SimWorkers
from pie_trio.testing.timeline import FaultStruck, ScenarioEnded
from pie_trio.testing.workshop import Workshop, workshop
from pie_trio.testing.world import Launch, World, is_expected

__all__ = ["Outcome", "Simulation"]
PATIENCE_SECONDS = 2000.0  # virtual, for the scenario
REST_SECONDS = 400.0  # virtual, for everything to come to rest after the last fault
GARBAGE_EVERY = 20  # runs


@attrs.define(eq=False)
class Simulation:
    """See the module. `faults`: the kinds to draw from, or the faults themselves."""

    seed: int
    faults: str | Faults | Sequence[Fault] | None = None
    scenario: str | Scenario | ScenarioFunction = "mixed"
    scheduler: Mode | None = None
    only: Collection[int] | None = None
    picks: Sequence[int] | None = None
    records: bool = False  # the host calls of real components are events, too
    _events: list[Event] = attrs.field(factory=list, init=False)
    _reached: Counter[str] = attrs.field(factory=Counter, init=False)
    _launches: list[Launch] = attrs.field(factory=list, init=False)
    _seconds: float = attrs.field(default=0.0, init=False)

    def run(self) -> Outcome:
        """One fresh `trio.run`; may be called once."""
        scenario = scenario_of_any(self.scenario)
        faults = self._draw()
        mode = self.scheduler or _mode_of(self.seed)
        jitter = any(fault.kind == "jitter" for fault in faults)
        scheduler = Scheduler(self.seed, mode, jitter, self.picks)
        plan = FaultPlan(faults, self._note_strike)
        watch = Watch(plan, self._reached, self._events.append)
        shop = workshop()
        shop.prepare(scenario.programs)
        facts = world_settings(faults, self.seed, two_models=scenario.two_models)
        self._trio_run(scheduler, watch, partial(self._main, scenario, facts, plan, watch, shop))
        shop.tidy()
        for rule in client_rules(self._launches, _reference) if scenario.is_compared else ():
            watch.broken.append(rule)
        return Outcome(
            seed=self.seed,
            scenario=scenario.name,
            scheduler=mode,
            faults=faults,
            fired=tuple(plan.fired),
            violations=tuple(watch.broken),
            timeline=tuple(self._events),
            steps=watch.steps,
            digest=watch.digest(self._events),
            picks=tuple(scheduler.picks),
            reached=self._reached,
            limits=facts.drawn,
            launches=tuple(self._launches),
            seconds=self._seconds,
        )

    def _draw(self) -> tuple[Fault, ...]:
        given = Faults.parse(self.faults) if isinstance(self.faults, str) else self.faults
        if given is None or isinstance(given, Faults):
            faults = (given or Faults()).draw(self.seed)
        else:
            faults = tuple(given)
        return only(faults, self.only)

    def _trio_run(self, scheduler: Scheduler, watch: Watch, main: object) -> None:
        shop = workshop()
        shop.runs += 1
        if shop.runs % GARBAGE_EVERY == 0:
            gc.collect(1)  # of what came since the last time, and the time before
        with in_control(scheduler):
            try:
                trio.run(main, clock=virtual_clock(), instruments=[watch])  # type: ignore[arg-type]
            except BaseException as error:
                if isinstance(error, (KeyboardInterrupt, SystemExit)):
                    raise
                watch.broken.append(f"crash: {_root_of(error)}")

    def _note_strike(self, fault: Fault) -> None:
        now = trio.current_time()
        self._events.append(FaultStruck(now, fault.number, fault.point, fault.at, fault.size))

    # --- the world

    async def _main(
        self,
        scenario: Scenario,
        facts: WorldSettings,
        plan: FaultPlan,
        watch: Watch,
        shop: Workshop,
    ) -> None:
        ports = self._ports(plan, watch)
        sandbox = shop.sandbox
        listener = SimListener(plan, facts.stream_bytes)
        async with trio.open_nursery() as outside:
            workers = SimWorkers(plan, facts.pace, outside, watch.note_batch)
            web = SimWeb(plan, outside)
            watch.promises = Promises(workers, watch.break_rule)

            def on_call(owner: Owner) -> None:
                watch.kill_at_call(owner.number)

            try:
                async with open_engine(
                    facts.settings,
                    ports,
                    shop.home,
                    launcher=workers.launch,
                    slicing=shop.slicing,
                    sandbox=sandbox,
                    web=web,
                    loader=script_loader(
                        SCRIPTS,
                        on_call,
                        ports,
                        records=self.records,
                        read_fails=lambda: plan.strikes("disk.read") is not None,
                    ),
                ) as engine:
                    await self._live(scenario, engine, listener, plan, watch, ports)
                    watch.engine = None
            except* WorkerLost as lost:
                if not _gave_up(workers, facts):
                    watch.break_rule(f"the engine did not start: {lost.exceptions[0]}")
            watch.engine = None
            self._seconds = trio.current_time()
            await trio.sleep(facts.pace.death_seconds * 2)
            for rule in outside_rules(workers, listener, web, sandbox):
                watch.break_rule(rule)
            outside.cancel_scope.cancel()

    def _ports(self, plan: FaultPlan, watch: Watch) -> Ports:
        streams = RandomStreams(self.seed)
        identities = streams.stream("identities")

        def emit(event: Event) -> None:
            self._events.append(event)
            watch.note(event)

        return Ports(
            streams,
            wall=trio.current_time,
            uuid=lambda: str(uuid.UUID(int=identities.getrandbits(128))),
            emit=emit,
            hit=plan.fault_points(),
        )

    async def _live(
        self,
        scenario: Scenario,
        engine: Engine,
        listener: SimListener,
        plan: FaultPlan,
        watch: Watch,
        ports: Ports,
    ) -> None:
        """The scenario, then peace, then the books."""
        dice = random.Random(f"{self.seed}/scenario")
        kind = World if scenario.has_door else InsideWorld
        world = kind(engine, plan, listener, dice, self._reached, self._launches)
        async with trio.open_nursery() as door:
            if scenario.has_door:
                door.start_soon(serve_gateway, engine, [listener], engine.settings, ports)
            watch.engine = engine
            with trio.CancelScope() as life:
                watch.stop = world.stop = life.cancel
                world.is_stopping = lambda: life.cancel_called
                await self._play(scenario, world, watch)
                plan.disarm()
                await self._come_to_rest(world, watch)
                for rule in engine_rules(engine):
                    watch.break_rule(rule)
                if watch.promises is not None:
                    watch.promises.at_rest(engine)
            if life.cancelled_caught:
                self._reached["the engine is stopped in the middle"] += 1
            plan.disarm()
            door.cancel_scope.cancel()

    async def _play(self, scenario: Scenario, world: World, watch: Watch) -> None:
        with trio.move_on_after(PATIENCE_SECONDS) as patience:
            try:
                async with open_disturbances(world):
                    await scenario.run(world)
            except* Exception as errors:
                if not is_expected(errors):
                    watch.break_rule(f"the scenario saw {_root_of(errors)}")
        if patience.cancelled_caught:
            watch.break_rule("liveness: the scenario is stuck")
        self._events.append(ScenarioEnded(trio.current_time(), not patience.cancelled_caught))

    async def _come_to_rest(self, world: World, watch: Watch) -> None:
        """Whatever nobody waits for is ended, as a client would; then all must be quiet in time."""
        with trio.move_on_after(REST_SECONDS) as patience:
            for instance in list(world.engine._running.values()):
                instance.terminate()
            while not at_rest(world.engine):  # noqa: ASYNC110
                await trio.sleep(0.05)
            await trio.sleep(1.0)
        if patience.cancelled_caught:
            watch.break_rule("liveness: no rest after the last fault")


def _gave_up(workers: SimWorkers, facts: WorldSettings) -> bool:
    """Whether so many workers failed that the engine may refuse to start."""
    return workers.plan.awaits("worker.start-fails") or len(workers.started) > 1


def _mode_of(seed: int) -> Mode:
    """Half of the seeds shuffle, which is the cheapest; the others look deeper."""
    return random.Random(f"{seed}/mode").choice((MODES[0], *MODES))


def _root_of(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


def _reference(program: str, arguments: tuple[str, ...]) -> str | None:
    """What the program returns alone, in a faultless world of plain limits."""
    known = workshop().references
    key = (program, arguments)
    if key not in known:

        async def solo(world: World) -> None:
            await world.run(program, *arguments)

        alone = Simulation(0, (), Scenario("solo", solo, is_compared=False), "fifo").run()
        if alone.violations:
            return f"(alone it breaks a rule: {alone.violations[0]})"
        known[key] = alone.launches[0].value
    return known[key]
