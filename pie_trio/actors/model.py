"""The loop of one worker generation: gather, choose, execute, settle.

Work-conserving: while a batch executes, passes gather in the inbox; when it returns, they are the
next batch. Pages are pinned from the submission of a pass until it has settled, also when its
asker is dead; a dead asker's waiting passes leave at once (`drop_owner`, synchronous). When the
generation is lost, every pass of it is refused, those still in a mailbox included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress

import trio

from gpu_worker import wire
from pie_trio.config import Batching, BatchTrigger, Limits
from pie_trio.decode import Decode, refuse
from pie_trio.errors import PassFailed, PieError, Terminated, TooMany, WorkerLost, retold
from pie_trio.events import BatchDispatched, BatchSettled
from pie_trio.gathering import Gathering
from pie_trio.mailbox import Reply
from pie_trio.messages import (
    CopyPage,
    ForwardPass,
    ModelMessage,
    Owner,
    PassResult,
    Ping,
    ResourceKind,
)
from pie_trio.ports import Ports
from pie_trio.services.batch_counts import BatchCounts
from pie_trio.services.batch_policy import Chunk, Plan, WaitingPass, next_batch
from pie_trio.services.grammar_book import GrammarBook
from pie_trio.services.page_copies import PageCopies
from pie_trio.services.page_pool import PagePool
from pie_trio.services.pass_chunks import Collected, request_for, whole_request
from pie_trio.services.pass_order import PassOrder
from pie_trio.services.pass_pins import PassPins, all_on
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
        self._name = name
        self._generation = generation
        self._budget = budget
        self.pins = PassPins(pools)
        self._batching = batching
        self._limits = limits
        self._ports = ports
        self._on_fault = on_fault
        self._book = book
        self._send, self._receive = trio.open_memory_channel[ModelMessage](
            limits.passes_waiting_max
        )
        self._tracked: dict[int, dict[ForwardPass, WaitingPass]] = {}  # by owner, until settled
        self._waiting: list[WaitingPass] = []
        self._pings: list[Ping] = []
        self._in_flight: set[ForwardPass] = set()
        self._collected: dict[ForwardPass, Collected] = {}
        self._order = PassOrder()
        self.gathering = Gathering(limits)  # whom the next batch waits for
        self._copies = PageCopies(pools[ResourceKind.KV_PAGE])
        self._answered: Counter[int] = Counter()  # passes by owner, of the batch being settled
        self._batches = 0
        self._lost: WorkerLost | None = None

    # --- the handle: what queues and instances call

    def track(self, forward: ForwardPass) -> None:
        """From now on the pass pins its pages; it must be submitted next."""
        if self._lost is not None:
            raise retold(self._lost)
        self.gathering.submitted(forward.owner.number)
        waiting = self._order.submit(forward)
        waiting.request = whole_request(forward)
        self._tracked.setdefault(forward.owner.number, {})[forward] = waiting
        self.pins.pin(forward)

    def submit_nowait(self, forward: ForwardPass) -> None:
        """Raises `trio.WouldBlock` when the inbox is full."""
        self._send.send_nowait(forward)

    async def submit(self, forward: ForwardPass) -> None:
        await self._send.send(forward)

    def ping(self, reply: Reply[str]) -> None:
        """An empty batch through the worker and back."""
        try:
            self._send.send_nowait(Ping(reply))
        except trio.WouldBlock:
            bound = self._limits.passes_waiting_max
            reply.refuse(TooMany(f"passes_waiting_max: {bound} passes and pings wait already"))

    def copy_page(self, copy: CopyPage) -> None:
        """Made with the next batch, before anything of it is computed."""
        if self._lost is not None:
            raise retold(self._lost)
        self._copies.add(copy)
        with suppress(trio.WouldBlock):  # a full inbox: the next batch comes soon
            self._send.send_nowait(copy)

    def unsettled(self, owner: Owner) -> Iterable[ForwardPass]:
        return self._tracked.get(owner.number, ())

    def drop_owner(self, owner: Owner) -> None:
        """Synchronous: what this owner has waiting leaves; what is in flight keeps its pins."""
        for forward in self._tracked.pop(owner.number, {}):
            if forward not in self._in_flight:
                self.pins.unpin(forward)
                self._collected.pop(forward, None)
            refuse(forward, Terminated("the instance has ended"))
        self._waiting = [w for w in self._waiting if w.forward.owner != owner]
        self._order.drop_owner(owner)
        self._copies.drop_owner(owner)
        self.gathering.gone(owner.number)

    def close(self, lost: WorkerLost) -> None:
        """The generation is over: every pass of it is refused."""
        self._lost = lost
        self.gathering.end()
        self._drain_inbox()
        tracked, self._tracked = self._tracked, {}
        living = {forward for passes in tracked.values() for forward in passes}
        for forward in living | self._in_flight:  # the dead ones in flight are tracked no more
            self.pins.unpin(forward)
        for forward in living:
            refuse(forward, lost)
        self._copies.close()
        for ping in self._pings:
            ping.reply.refuse(lost)
        self._waiting.clear()
        self._in_flight.clear()
        self._collected.clear()

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
            waiting = self._tracked.get(message.owner.number, {}).get(message)
            if waiting is not None:  # otherwise its owner died while it was on the way
                self._waiting.append(waiting)

    def _next_plan(self) -> Plan:
        now = trio.current_time()
        budget = self.counts.budget(self._budget, self._limits)
        return next_batch(self._waiting, self._batching, self._limits, budget, now)

    async def _execute(self, link: WorkerLink, plan: Plan) -> None:
        started = trio.current_time()
        rows = sum(chunk.end - chunk.first for chunk in plan.chunks)
        batch = self._dispatch(plan)
        pings, self._pings = self._pings, []
        self._ports.emit(BatchDispatched(started, self._name, batch.number, len(plan.chunks), rows))
        self._ports.hit("model.dispatch")
        try:
            result = await link.execute(batch)
        except WorkerLost as lost:
            for ping in pings:
                ping.reply.refuse(lost)
            raise
        if self._lost is not None:
            return  # it was closed while the answer was on its way: nobody expects it any more
        seconds = trio.current_time() - started
        if plan.chunks:
            self.counts.note(len(plan.chunks), rows, seconds)
        self._ports.hit("model.settle")
        self._settle(plan, result)
        for ping in pings:
            ping.reply.fill("pong")
        self._ports.emit(BatchSettled(trio.current_time(), self._name, batch.number, seconds))

    def _dispatch(self, plan: Plan) -> wire.Batch:
        self._in_flight = {chunk.waiting.forward for chunk in plan.chunks}
        copies = self._copies.dispatch(plan)
        for chunk in plan.chunks:
            chunk.waiting.rows_done = chunk.end
            if chunk.waiting.has_left:
                self._order.leave(chunk.waiting)
        self._batches += 1
        self._waiting = [waiting for waiting in self._waiting if not waiting.has_left]
        requests = tuple(request_for(chunk) for chunk in plan.chunks)
        lesson = self._book.lesson(chunk.waiting.forward.grammar for chunk in plan.chunks)
        return wire.Batch(self._generation, self._batches, tuple(copies), requests, lesson)

    def _settle(self, plan: Plan, result: wire.BatchResult) -> None:
        """Gives the answers out: straight to the askers, no mailbox upwards."""
        self._answered = Counter()
        self._copies.settle()
        assert len(result.answers) == len(plan.chunks), "a batch has an answer for each request"
        for chunk, answer in zip(plan.chunks, result.answers, strict=True):
            self._settle_chunk(chunk, answer)
        self.gathering.begin(self._answered)

    def _settle_chunk(self, chunk: Chunk, answer: wire.Answer) -> None:
        forward = chunk.waiting.forward
        self._in_flight.discard(forward)
        tracked = self._tracked.get(forward.owner.number, {})
        if forward not in tracked:  # its owner died meanwhile, or what it builds on failed
            self._collected.pop(forward, None)
            self.pins.unpin(forward)
            return
        if answer.error is not None:
            self._fail(chunk.waiting, PassFailed(f"forward pass: {answer.error}"))
            return
        collected = self._collected.setdefault(forward, Collected())
        collected.add(chunk, answer)
        if not chunk.waiting.has_left:
            return
        result = self._collected.pop(forward).result(forward)
        if forward.decode is not None and self._go_on(chunk.waiting, forward.decode, result):
            return
        del tracked[forward]
        self.pins.unpin(forward)
        self._answered[forward.owner.number] += bool(forward.outputs)  # who asks nothing waits not
        forward.reply.fill(result)

    def _go_on(self, waiting: WaitingPass, decode: Decode, result: PassResult) -> bool:
        """The next step of a sequence takes the place of this one, its pins included."""
        self.pins.mark(waiting)
        forward, now = waiting.forward, trio.current_time()
        if not decode.take(result, forward.page_size, now):
            return False
        step = self._order.follow(*decode.next_step(forward, now))
        tracked = self._tracked[forward.owner.number]
        del tracked[forward]
        tracked[step.forward] = step
        if step.forward.pins is not forward.pins:
            self.pins.pin(step.forward)
            self.pins.unpin(forward)
        self._waiting.append(step)
        return True

    def _fail(self, first: WaitingPass, error: PassFailed) -> None:
        """With it fail those that build on what it was to write: nothing of that is there."""
        tracked = self._tracked[first.forward.owner.number]
        for waiting in [first, *all_on(first, tracked)]:
            del tracked[waiting.forward]
            self._answered[waiting.forward.owner.number] += 1
            self._withdraw(waiting)
            refuse(waiting.forward, error)
            if not waiting.forward.outputs:  # nobody will look at it
                self._on_fault(waiting.forward.owner, error)
            error = PassFailed("forward pass: an earlier pass, on which it builds, has failed")

    def _withdraw(self, waiting: WaitingPass) -> None:
        """Nothing of it is executed any more; in flight, it keeps its pins until it is settled."""
        forward = waiting.forward
        waiting.rows_done = len(forward.tokens)
        self._order.leave(waiting)
        self._collected.pop(forward, None)
        self._waiting = [item for item in self._waiting if item is not waiting]
        self.pins.unmark(forward)
        if forward not in self._in_flight:
            self.pins.unpin(forward)
