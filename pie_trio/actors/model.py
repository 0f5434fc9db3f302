"""The loop of one worker generation: gather, choose, execute, settle.

Work-conserving: while a batch executes, passes gather in the inbox; when it returns, they are the
next batch. Sequences that nobody has to look at go on in the worker for several steps, until
somebody has something to say. A dead asker's waiting passes leave at once (`drop_owner`,
synchronous). When the generation is lost, every pass of it is refused, those still in a mailbox
included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

import trio

from gpu_worker import wire
from pie_trio.config import Batching, BatchTrigger, Limits
from pie_trio.errors import PieError, TooMany, WorkerLost, retold
from pie_trio.events import BatchDispatched, BatchSettled
from pie_trio.gathering import Gathering
from pie_trio.mailbox import Reply
from pie_trio.messages import (
    CopyPage,
    ForwardPass,
    ModelMessage,
    Owner,
    Ping,
    ResourceKind,
)
from pie_trio.ports import Ports
from pie_trio.services.batch_counts import BatchCounts
from pie_trio.services.batch_policy import Plan, next_batch
from pie_trio.services.grammar_book import GrammarBook
from pie_trio.services.multi_step import multi_step, steps_of
from pie_trio.services.page_copies import PageCopies
from pie_trio.services.page_pool import PagePool
from pie_trio.services.pass_chunks import request_for
from pie_trio.services.pass_table import PassTable
from pie_trio.services.worker_link import WorkerLink


class ModelLoop:
    """Executes the passes of one worker generation, batch by batch."""

    def __init__(
        self,
        name: str,
        generation: int,
        budget: int,
        pools: dict[ResourceKind, PagePool],
        batching: Batching,
        limits: Limits,
        ports: Ports,
        on_fault: Callable[[Owner, PieError], None],
        book: GrammarBook,
    ) -> None:
        self.counts = BatchCounts()
        self.passes = PassTable(pools, on_fault)
        self.gathering = Gathering(limits)  # whom the next batch waits for
        self._name = name
        self._generation = generation
        self._budget = budget
        self._batching = batching
        self._limits = limits
        self._ports = ports
        self._book = book
        self._send, self._receive = trio.open_memory_channel[ModelMessage](
            limits.passes_waiting_max
        )
        self._pings: list[Ping] = []
        self._copies = PageCopies(pools[ResourceKind.KV_PAGE])
        self._stepping: WorkerLink | None = None  # executes several steps of a batch
        self._is_called = False  # while it does
        self._was_cut_short = False  # when it last did
        self._batches = 0
        self._lost: WorkerLost | None = None

    # --- the handle: what queues and instances call

    def track(self, forward: ForwardPass) -> None:
        """From now on the pass pins its pages; it must be submitted next."""
        if self._lost is not None:
            raise retold(self._lost)
        self.interrupt()
        self.gathering.submitted(forward.owner.number, forward.submitted_at)
        self.passes.track(forward)

    def submit_nowait(self, forward: ForwardPass) -> None:
        """Raises `trio.WouldBlock` when the inbox is full."""
        self._send.send_nowait(forward)
        self.gathering.arrived(forward.owner.number)

    async def submit(self, forward: ForwardPass) -> None:
        await self._send.send(forward)
        self.gathering.arrived(forward.owner.number)

    def ping(self, reply: Reply[str]) -> None:
        """An empty batch through the worker and back."""
        self.interrupt()
        try:
            self._send.send_nowait(Ping(reply))
        except trio.WouldBlock:
            bound = self._limits.passes_waiting_max
            reply.refuse(TooMany(f"passes_waiting_max: {bound} passes and pings wait already"))

    def copy_page(self, copy: CopyPage) -> None:
        """Made with the next batch, before anything of it is computed."""
        if self._lost is not None:
            raise retold(self._lost)
        self.interrupt()
        self._copies.add(copy)
        with suppress(trio.WouldBlock):  # a full inbox: the next batch comes soon
            self._send.send_nowait(copy)

    def interrupt(self) -> None:
        """Several steps that the worker executes without asking end with the one under way."""
        self._is_called = True
        if self._stepping is not None and self._stepping.halt():
            self._stepping = None  # who has been told once is told

    def unsettled(self, owner: Owner) -> Iterable[ForwardPass]:
        return self.passes.tracked.get(owner.number, ())

    def drop_owner(self, owner: Owner) -> None:
        """Synchronous: what this owner has waiting leaves; what is in flight keeps its pins."""
        if self.passes.drop_owner(owner):
            self.interrupt()
        self._copies.drop_owner(owner)
        self.gathering.gone(owner.number)

    def close(self, lost: WorkerLost) -> None:
        """The generation is over: every pass of it is refused."""
        self._lost = lost
        self.gathering.end()
        self._drain_inbox()
        self.passes.close(lost)
        self._copies.close()
        for ping in self._pings:
            ping.reply.refuse(lost)

    # --- the loop

    async def run(self, link: WorkerLink) -> None:
        """Until the worker is lost or the scope ends."""
        while self._lost is None:
            if self._batching.trigger is BatchTrigger.ADAPTIVE:
                await self.gathering.wait(self.counts.last_seconds)
            self.gathering.end()
            self._drain_inbox()
            plan = self._next_plan()
            if not (plan.chunks or self._pings or self._copies):
                await self._wait_for_more(plan.ask_again_at)
                continue
            try:
                await self._execute(link, plan)
            except WorkerLost:
                return  # the supervisor closes this generation

    def _drain_inbox(self) -> None:
        with suppress(trio.WouldBlock):
            while True:
                self._accept(self._receive.receive_nowait())

    async def _wait_for_more(self, deadline: float | None) -> None:
        with trio.move_on_at(float("inf") if deadline is None else deadline):
            self._accept(await self._receive.receive())

    def _accept(self, message: ModelMessage) -> None:
        if isinstance(message, Ping):
            self._pings.append(message)
        elif isinstance(message, ForwardPass):  # a copy waits among the copies
            self.passes.arrive(message)

    def _next_plan(self) -> Plan:
        now = trio.current_time()
        budget = self.counts.budget(self._budget, self._limits)
        return next_batch(self.passes.waiting, self._batching, self._limits, budget, now)

    async def _execute(self, link: WorkerLink, plan: Plan) -> None:
        started = trio.current_time()
        rows = sum(chunk.end - chunk.first for chunk in plan.chunks)
        batch = self._dispatch(plan)
        pings, self._pings = self._pings, []
        self._ports.emit(BatchDispatched(started, self._name, batch.number, len(plan.chunks), rows))
        self._ports.hit("model.dispatch")
        try:
            result = await self._answer_of(link, plan, batch)
        except WorkerLost as lost:
            for ping in pings:
                ping.reply.refuse(lost)
            raise
        if self._lost is not None:
            return  # it was closed while the answer was on its way: nobody expects it any more
        seconds, steps, more = trio.current_time() - started, 1, batch.multi_step
        if plan.chunks:
            steps = result.first_step + len(result.answers) // len(plan.chunks)
            self.counts.note(len(plan.chunks), rows, seconds, steps)
        is_whole = more is not None and steps == more.steps
        if more is not None:
            self._was_cut_short = not is_whole
        self._ports.hit("model.settle")
        self._settle(plan, result, is_whole)
        for ping in pings:
            ping.reply.fill("pong")
        now = trio.current_time()
        self._ports.emit(BatchSettled(now, self._name, batch.number, seconds, steps))

    async def _answer_of(self, link: WorkerLink, plan: Plan, batch: wire.Batch) -> wire.BatchResult:
        self._stepping, self._is_called = link if batch.multi_step else None, False
        try:
            return await link.execute(batch, partial(self._take_part, plan))
        finally:
            self._stepping = None

    def _take_part(self, plan: Plan, part: wire.BatchResult) -> None:
        """The worker goes on; unless somebody has something to say who was not heard."""
        if self._lost is None:
            self.passes.settle_part(plan.chunks, part, trio.current_time())
            if self._is_called:
                self.interrupt()

    def _dispatch(self, plan: Plan) -> wire.Batch:
        copies = tuple(self._copies.dispatch(plan))
        self.passes.dispatch(plan.chunks)
        self._batches += 1
        requests = tuple(request_for(chunk) for chunk in plan.chunks)
        lesson = self._book.lesson(chunk.waiting.forward.grammar for chunk in plan.chunks)
        is_alone = not (self.passes.waiting or self._pings or copies)
        seconds, was_cut_short = self.counts.last_seconds, self._was_cut_short
        steps = steps_of(plan.chunks, self._limits, seconds, was_cut_short) if is_alone else 1
        more = multi_step(plan.chunks, steps, self._limits)
        return wire.Batch(self._generation, self._batches, copies, requests, lesson, more)

    def _settle(self, plan: Plan, result: wire.BatchResult, is_whole: bool) -> None:
        """Gives the answers out: straight to the askers, no mailbox upwards."""
        self._copies.settle()
        now = trio.current_time()
        self.gathering.begin(self.passes.settle(plan.chunks, result, now, is_whole))
