"""What a world promises in time: nobody waits for what is there, and no death goes unnoticed.

Looks at workers, waiters and generations after every step, and at events when they are emitted. It
decides by its own arithmetic, never by the code that it watches, and it changes nothing. What is
broken is told as a sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs
import trio

from pie_trio.actors.resource_manager import ResourceManager, Waiter
from pie_trio.engine import Engine
from pie_trio.events import (
    BatchDispatched,
    Event,
    InstanceFinished,
    PagesRefused,
    WorkerDied,
    WorkerStarted,
)
from pie_trio.messages import ForwardPass, ResourceKind
from pie_trio.served_model import Generation, ServedModel
from pie_trio.services.page_pool import PagePool
from pie_trio.testing.sim_worker import SimWorker, SimWorkers

AT_ONCE_SECONDS = 0.1  # virtual: nothing but a bug takes time between two steps
LEAVE_SECONDS = 1.0
PASS_FAULTS = ("worker.pass-fails", "worker.batch-fails")


@attrs.define(eq=False)
class _Life:
    """What was seen of one worker process."""

    worker: SimWorker
    gone_since: float | None = None
    hung_since: float | None = None
    unread: object = None
    unread_since: float = 0.0
    is_told: bool = False


@attrs.define(eq=False)
class _Past:
    """What was seen of one generation."""

    model: ServedModel
    generation: Generation
    passes: dict[ForwardPass, None] = attrs.field(factory=dict)
    tracked: int = 0
    retired_at: float | None = None


@attrs.define(eq=False)
class Promises:
    """The promises of one world."""

    workers: SimWorkers
    break_rule: Callable[[str], None]
    _lives: dict[SimWorker, _Life] = attrs.field(factory=dict)
    _pasts: dict[Generation, _Past] = attrs.field(factory=dict)
    _waiting_since: dict[Waiter, float] = attrs.field(factory=dict)
    _started_at: dict[str, float] = attrs.field(factory=dict)
    _workless: dict[str, int] = attrs.field(factory=dict)  # deaths in a row, by model
    _looked_at: float = -1.0

    def after_step(self, engine: Engine) -> None:
        now = trio.current_time()
        for model in engine.models.values():
            generation = model._generation
            if generation is not None:
                self._look_at_generation(model, generation)
        if now != self._looked_at:  # what follows is broken by time alone
            self._looked_at = now
            self._look_at_workers()
        if self._pasts:
            self._look_at_pasts()

    def _look_at_workers(self) -> None:
        for worker in self.workers.started:
            life = self._lives.get(worker)
            if life is None:
                is_past = bool(worker.process.how)  # before anybody looked
                life = self._lives[worker] = _Life(worker, is_told=is_past)
            if not life.is_told:
                self._look_at_worker(life)

    def _look_at_pasts(self) -> None:
        for past in list(self._pasts.values()):
            if past.model._generation is not past.generation:
                self._look_at_past(past)

    def note(self, engine: Engine, event: Event) -> None:
        match event:
            case PagesRefused():
                self._note_refusal(engine, event)
            case WorkerStarted():
                self._started_at[event.model] = event.at
            case WorkerDied():
                self._note_death(engine, event)
            case BatchDispatched():
                self._note_batch(engine, event)
            case InstanceFinished() if event.outcome == "PassFailed":
                if not any(fault.point in PASS_FAULTS for fault in self.workers.plan.fired):
                    self.break_rule("a pass fails although nothing is wrong with its worker")

    def _note_batch(self, engine: Engine, event: BatchDispatched) -> None:
        generation = engine.models[event.model].generation
        if generation is not None and event.rows > generation.loop._budget:
            self.break_rule("a batch is larger than what its worker takes")

    # --- workers

    def _look_at_worker(self, life: _Life) -> None:
        worker, now = life.worker, trio.current_time()
        if worker.process.is_gone.is_set():
            life.gone_since = now if life.gone_since is None else life.gone_since
            if now > life.gone_since + AT_ONCE_SECONDS:
                self.break_rule("nobody notices that a worker is dead")
        elif worker._hangs:
            life.hung_since = now if life.hung_since is None else life.hung_since
            bound = worker.spec.limits.heartbeat_lost_seconds
            if now > life.hung_since + bound + 3 * worker.spec.limits.heartbeat_seconds:
                self.break_rule("nobody notices that a worker hangs")
        self._look_at_socket(life, now)

    def _look_at_socket(self, life: _Life, now: float) -> None:
        inbox = life.worker.socket._inbox
        head = inbox[0] if inbox else None
        if head is not life.unread:
            life.unread, life.unread_since = head, now
        is_late = head is not None and now > life.unread_since + AT_ONCE_SECONDS
        if is_late and not life.worker.socket.is_closed and not life.worker.process.how:
            self.break_rule("a message of the worker lies unread")

    def _note_death(self, engine: Engine, event: WorkerDied) -> None:
        for life in self._lives.values():
            worker = life.worker
            mine = worker.spec.settings.name == event.model
            if mine and worker.generation == event.generation:
                life.is_told = True
                if "no heartbeat" in event.reason and not worker._hangs and not worker.process.how:
                    self.break_rule("a worker that beats is declared dead")
                dies_at_once = worker.pace.death_seconds < worker.spec.limits.worker_dying_seconds
                if "is dying" in event.reason and dies_at_once:
                    self.break_rule("nobody is told how a worker died")
        fired = {fault.point for fault in self.workers.plan.fired}
        if "it answered" in event.reason and "link.wrong" not in fired:
            self.break_rule("a worker that answered well is declared lost")
        self._count_death(engine, event)

    def _count_death(self, engine: Engine, event: WorkerDied) -> None:
        """A worker that has worked, or lasted, may die as often as it likes."""
        limits = engine.settings.limits
        past = next(
            (
                past
                for past in self._pasts.values()
                if past.model.name == event.model and past.generation.number == event.generation
            ),
            None,
        )
        began = self._started_at.get(event.model, event.at)
        lasted = event.at - began > limits.worker_steady_seconds
        worked = past is not None and bool(past.generation.loop.counts.batches)
        before = self._workless.get(event.model, 0)
        self._workless[event.model] = 1 if worked or lasted else before + 1

    # --- pages

    def _look_at_waiters(self, manager: ResourceManager) -> None:
        now = trio.current_time()
        for waiter in manager._waiters:
            self._waiting_since.setdefault(waiter, now)
        for kind, pool in manager.pools.items():
            first = next((w for w in manager._waiters if w.kind == kind), None)
            if first is not None and first.count <= len(pool._free):
                self.break_rule("somebody waits for pages that are free")

    def _note_refusal(self, engine: Engine, event: PagesRefused) -> None:
        generation = engine.models[event.model].generation
        if generation is None:
            return
        manager, limits = generation.manager, engine.settings.limits
        since = max(
            (at for w, at in self._waiting_since.items() if _is(w, event)), default=event.at
        )
        if event.at - since >= limits.page_wait_seconds * 0.999:
            return
        for kind, pool in manager.pools.items():
            is_it = pool.free_count == event.free and event.needed <= pool.capacity
            if is_it and (any(_can_go_on(manager, kind, event)) or pool._limbo):
                self.break_rule("pages are refused although some can still come back")

    # --- generations

    def _look_at_generation(self, model: ServedModel, generation: Generation) -> None:
        past = self._pasts.get(generation)
        if past is None:
            past = self._pasts[generation] = _Past(model, generation)
        tracked = generation.loop.passes.tracked
        count = sum(map(len, tracked.values()))
        if count != past.tracked:
            past.tracked = count
            for passes in tracked.values():
                past.passes.update(dict.fromkeys(passes))
        if generation.manager._waiters:
            self._look_at_waiters(generation.manager)

    def _look_at_past(self, past: _Past) -> None:
        now = trio.current_time()
        if past.retired_at is None:
            past.retired_at = now
            self._look_at_retirement(past)
        elif past.generation.residents:
            if now > past.retired_at + LEAVE_SECONDS:
                self.break_rule("an instance lives on without its worker")
        else:
            del self._pasts[past.generation]

    def _look_at_retirement(self, past: _Past) -> None:
        if not all(forward.reply.is_filled for forward in past.passes):
            self.break_rule("a pass of a lost worker is never answered")
        lost, limits = past.model.lost_exports, past.model._spec.limits
        names = [
            (export.tenant, kind, export.name)
            for kind, pool in past.generation.manager.pools.items()
            for export in pool.all_exports()
        ]
        if len(lost) < limits.exports_max and not lost.keys() >= set(names):
            self.break_rule("an export that was lost with its worker is not remembered")

    # --- at the end

    def at_rest(self, engine: Engine) -> None:
        """When every instance has ended and every client has gone."""
        for name, model in engine.models.items():
            most = engine.settings.limits.worker_restarts_max
            if model._given_up is not None and self._workless.get(name, 0) <= most:
                self.break_rule("a worker that had worked is given up")
            for pool in _pools_of(model):
                if any(not export.is_visible for export in pool.all_exports()):
                    self.break_rule("an export that nobody can see is left")
        if any(instance.outlet.is_attached for instance in engine._finished.values()):
            self.break_rule("a client that has gone is still attached")


def _pools_of(model: ServedModel) -> list[PagePool]:
    return [] if model.generation is None else list(model.generation.manager.pools.values())


def _is(waiter: Waiter, event: PagesRefused) -> bool:
    return waiter.lease.owner.instance == event.instance and waiter.count == event.needed


def _can_go_on(manager: ResourceManager, kind: ResourceKind, event: PagesRefused) -> Iterator[bool]:
    """Of each holder of such pages: whether it waits for neither pages nor a client."""
    waiting = {waiter.lease.owner.instance for waiter in manager._waiters} | {event.instance}
    for lease in manager._leases.values():
        holds = bool(lease.tenancies[kind].held)
        is_idle = lease.owner.instance in waiting or lease.waits_for_client()
        yield holds and not is_idle
