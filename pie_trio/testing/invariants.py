"""What must hold after every step, whatever has failed so far; and what strikes between steps.

An instrument of Trio that looks at the engine's books whenever they have changed. It changes
nothing but what the fault plan says. Trio silently removes an instrument that raises, so nothing
that goes wrong in here ever leaves it: it is noted as a broken rule of the harness itself.
"""

from __future__ import annotations

import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import chain

import attrs
import trio

from gpu_worker import wire
from pie_trio.actors.model import ModelLoop
from pie_trio.engine import Engine
from pie_trio.events import BatchDispatched, BatchSettled, Event, InstanceFinished
from pie_trio.messages import ForwardPass, PageId, ResourceKind
from pie_trio.served_model import Generation
from pie_trio.services.page_pool import PagePool
from pie_trio.services.pass_chunks import seed_from_row
from pie_trio.testing.faults import FaultPlan
from pie_trio.testing.promises import Promises
from pie_trio.testing.sim_worker import SimWorker
from pie_trio.testing.timeline import BatchBegun, BatchLeft, PagesCounted, RuleBroken

Fingerprint = tuple[int, int, int, int]


@attrs.define(eq=False)
class Watch(trio.abc.Instrument):
    """The instrument of one run."""

    plan: FaultPlan
    reached: Counter[str]
    emit: Callable[[Event], None]
    engine: Engine | None = None
    stop: Callable[[], None] = lambda: None
    promises: Promises | None = None
    broken: list[str] = attrs.field(factory=list)
    workers: dict[str, SimWorker] = attrs.field(factory=dict)  # by model: who executes a batch
    _trace: array[int] = attrs.field(factory=lambda: array("I"))  # whose step it was
    _ordinals: dict[trio.lowlevel.Task, int] = attrs.field(factory=dict)
    _seen: dict[PagePool, Fingerprint] = attrs.field(factory=dict)
    _used: dict[str, int] = attrs.field(factory=dict)  # pages of each model, as last told
    _passes: dict[tuple[str, int], ForwardPass] = attrs.field(factory=dict)  # by model and seed
    _executed: dict[tuple[str, int, int, int], int] = attrs.field(factory=dict)

    # --- what Trio calls

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        ordinals = self._ordinals
        ordinal = ordinals.get(task)
        if ordinal is None:
            ordinal = ordinals[task] = len(ordinals)
        self._trace.append(ordinal)
        if self.engine is None:
            return
        try:
            if task.name.startswith("instance ") and self.plan.strikes("kill.step"):
                self._kill(int(task.name.removeprefix("instance ")))
            if self.plan.strikes("stop.engine"):
                self.stop()
            self._check(self.engine)
            if self.promises is not None:
                self.promises.after_step(self.engine)
        except BaseException as error:
            self.break_rule(f"the harness itself failed: {error!r}")

    # --- what the simulation calls

    @property
    def steps(self) -> int:
        return len(self._trace)

    def digest(self, events: Iterable[Event]) -> int:
        """Of who took every step, and of all that was told, to the last digit of its time."""
        return zlib.crc32("\n".join(map(repr, events)).encode(), zlib.crc32(self._trace))

    def break_rule(self, rule: str) -> None:
        if rule not in self.broken:
            self.broken.append(rule)
            self.emit(RuleBroken(trio.current_time(), rule))

    def note(self, event: Event) -> None:
        """Every event of the engine, at the moment at which it is emitted."""
        if self.engine is None:
            return
        try:
            if self.promises is not None:
                self.promises.note(self.engine, event)
            match event:
                case BatchDispatched():
                    self._note_dispatch(self.engine, event)
                case BatchSettled() if fault := self.plan.strikes("kill.settle"):
                    self._kill_any(fault.size)
                case InstanceFinished():
                    self._note_end(self.engine, event)
        except BaseException as error:
            self.break_rule(f"the harness itself failed: {error!r}")

    def note_batch(self, worker: SimWorker, batch: wire.BatchArrays | None) -> None:
        """A worker begins a batch, or has executed it."""
        model, now = worker.spec.settings.name, trio.current_time()
        if batch is None:
            if self.workers.pop(model, None) is worker:
                self.emit(BatchLeft(now, worker.process.pid, 0))
            return
        self.workers[model] = worker
        self.emit(
            BatchBegun(
                now,
                worker.process.pid,
                worker.generation,
                batch.number,
                batch.request_count,
                len(batch.pages),
            )
        )
        if worker.generation > 1:
            self.reached["a later generation executes"] += 1
        if self.engine is None:
            return  # while it stops, what it dispatches is not noted either
        for index in range(batch.request_count):
            self._note_request(model, worker.generation, batch.request(index))

    # --- faults that strike between steps

    def _kill(self, number: int) -> None:
        assert self.engine is not None, "instances live in an engine"
        for instance in self.engine._running.values():
            if instance.owner.number == number:
                instance.terminate("Signal")
                if self._in_flight(number):
                    self.reached["kill while a batch is in flight"] += 1
                else:
                    self.reached["kill between batches"] += 1

    def kill_at_call(self, number: int) -> None:
        if self.plan.strikes("kill.call"):
            self._kill(number)

    def _kill_any(self, size: float) -> None:
        assert self.engine is not None, "instances live in an engine"
        running = list(self.engine._running.values())
        if running:
            self._kill(running[int(size * len(running))].owner.number)

    def _in_flight(self, number: int) -> list[ForwardPass]:
        return [
            forward
            for generation in self._generations()
            for forward in generation.loop.passes.in_flight
            if forward.owner.number == number
        ]

    # --- rules

    def _generations(self) -> list[Generation]:
        assert self.engine is not None, "generations live in an engine"
        models = self.engine.models.values()
        return [model.generation for model in models if model.generation is not None]

    def _check(self, engine: Engine) -> None:
        seen = self._seen
        for name, model in engine.models.items():
            generation = model._generation
            if generation is None:
                continue
            for kind, pool in generation.manager.pools.items():
                # Any change of hands changes one of these numbers.
                fingerprint = (
                    len(pool._free),
                    len(pool._holders),
                    len(pool._limbo),
                    len(pool._pins),
                )
                if seen.get(pool) != fingerprint:
                    seen[pool] = fingerprint
                    self._check_pool(name, kind, pool, generation)

    def _check_pool(
        self, model: str, kind: ResourceKind, pool: PagePool, generation: Generation
    ) -> None:
        free, held, limbo = pool._free, pool._holders.keys(), pool._limbo
        distinct = set(free)
        if len(distinct) != len(free) or len(free) + len(held) + len(limbo) != pool.capacity:
            self.break_rule("page conservation")
        if not distinct.isdisjoint(held) or not limbo.isdisjoint(held | distinct):
            self.break_rule("a page is in two states")
        if any(count <= 0 for count in pool._pins.values()):
            self.break_rule("a negative count")
        if not distinct.isdisjoint(pool._pins):
            self.break_rule("a pinned page is free")
        if limbo:
            self.reached["a page only a batch holds"] += 1
        self._check_owners(pool)
        if kind is ResourceKind.KV_PAGE:
            used = pool.capacity - len(free)
            if self._used.get(model) != used:
                self._used[model] = used
                self.emit(PagesCounted(trio.current_time(), model, used, pool.capacity))
            self._check_worker(model, distinct, generation)

    def _check_owners(self, pool: PagePool) -> None:
        assert self.engine is not None, "the owners live in an engine"
        alive = {instance.owner.number for instance in self.engine._running.values()}
        for number, tenancy in pool._tenancies.items():
            if tenancy.held and number not in alive:
                self.break_rule("a page is owned by the dead")

    def _check_worker(self, model: str, free: set[PageId], generation: Generation) -> None:
        """What the worker reads or writes right now is not free, whoever has died."""
        worker = self.workers.get(model)
        if worker is None or worker.batch is None or worker.generation != generation.number:
            return
        if worker.process.how:
            return
        more = worker.batch.multi_step
        pages = chain(worker.batch.pages.tolist(), *(more.spare if more else ()))
        if not free.isdisjoint(pages):
            self.break_rule("a page is free under a batch in flight")

    def _note_dispatch(self, engine: Engine, event: BatchDispatched) -> None:
        loop = self._loop_of(engine, event.model)
        alive = {instance.owner.number for instance in engine._running.values()}
        for forward in loop.passes.in_flight:
            for row in range(len(forward.tokens)):  # a chunk's seed tells where it begins
                self._passes[event.model, seed_from_row(forward.seed, row)] = forward
            if forward.owner.number not in alive:
                self.break_rule("the work of the dead is dispatched")
        if len({forward.owner for forward in loop.passes.in_flight}) > 1:
            self.reached["a batch of several instances"] += 1
        fault = self.plan.strikes("kill.dispatch")
        if fault is not None and loop.passes.in_flight:
            owners = sorted({forward.owner.number for forward in loop.passes.in_flight})
            self._kill(owners[int(fault.size * len(owners))])

    def _loop_of(self, engine: Engine, model: str) -> ModelLoop:
        generation = engine.models[model].generation
        assert generation is not None, "a living generation dispatches"
        return generation.loop

    def _note_request(self, model: str, generation: int, request: wire.Request) -> None:
        """Passes of one queue reach the worker in the order of their submission."""
        forward = self._passes.get((model, request.seed))
        if forward is None:
            self.break_rule("the worker executes a pass that nobody dispatched")
            return
        queue = (model, generation, forward.owner.number, forward.queue)
        if self._executed.get(queue, -1) > forward.number:
            self.break_rule("the order inside a queue")
        self._executed[queue] = forward.number

    def _note_end(self, engine: Engine, event: InstanceFinished) -> None:
        number = next(
            (i.owner.number for i in engine._running.values() if i.id == event.instance), None
        )
        parents = {i.parent.owner.number for i in engine._running.values() if i.parent is not None}
        if number in parents:
            self.break_rule("a child outlives its parent")
        if event.outcome != "return":
            self.reached[f"an instance ends with {event.outcome}"] += 1
        for generation in self._generations():
            for pool in generation.manager.pools.values():
                if number in pool._tenancies:
                    self.break_rule("a death is told before its pages are back")
