"""The loop of one worker generation: gather, choose, execute, settle.

Work-conserving: while a batch executes, passes gather in the inbox; when it returns, they are the
next batch. Pages are pinned from the submission of a pass until it has settled, also when its
asker is dead; a dead asker's waiting passes leave at once (`drop_owner`, synchronous). When the
generation is lost, every pass of it is refused, those still in a mailbox included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import attrs
import trio

from gpu_worker import wire
from pie_trio.config import Batching, BatchTrigger, Limits
from pie_trio.errors import PassFailed, PieError, Terminated, WorkerLost
from pie_trio.events import BatchDispatched, BatchSettled
from pie_trio.mailbox import Reply, open_mailbox
from pie_trio.messages import ForwardPass, Owner, PageId, ResourceKind
from pie_trio.ports import Ports
from pie_trio.services.batch_policy import (
    Chunk,
    Plan,
    WaitingPass,
    next_batch,
    written_slots,
)
from pie_trio.services.page_pool import PagePool
from pie_trio.services.pass_chunks import Collected, request_for
from pie_trio.services.worker_link import WorkerLink

HOPS = 2  # steps of the scheduler until a guest that parks in passing is back, or a queue hands on


@attrs.frozen(eq=False)
class Ping:
    """An empty batch through the worker and back, to measure the way."""

    reply: Reply[str]


@attrs.frozen(eq=False)
class InboxMessage:
    """What the mailbox carries: a pass to batch, or a ping."""

    content: ForwardPass | Ping


@attrs.define(eq=False)
class BatchCounts:
    """What `model_status` tells of the batches."""

    batches: int = 0
    rows: int = 0
    passes: int = 0
    sizes: list[int] = attrs.field(factory=list)  # how many batches had so many passes
    last_seconds: float = 0.0
    total_seconds: float = 0.0

    def note(self, passes: int, rows: int, seconds: float) -> None:
        self.batches += 1
        self.passes += passes
        self.rows += rows
        self.sizes += [0] * (passes + 1 - len(self.sizes))
        self.sizes[passes] += 1
        self.last_seconds = seconds
        self.total_seconds += seconds


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
    ) -> None:
        self.counts = BatchCounts()
        self._name = name
        self._generation = generation
        self._budget = budget
        self._pools = pools
        self._batching = batching
        self._limits = limits
        self._ports = ports
        self._on_fault = on_fault
        self._send, self._receive = open_mailbox(InboxMessage, limits.passes_waiting_max)
        self._tracked: dict[int, dict[ForwardPass, None]] = {}  # by owner, until settled
        self._waiting: list[WaitingPass] = []
        self._pings: list[Ping] = []
        self._in_flight: set[ForwardPass] = set()
        self._collected: dict[ForwardPass, Collected] = {}
        self._page_writers: dict[PageId, WaitingPass] = {}
        self._embedding_writers: dict[int, WaitingPass] = {}
        self._queue_tails: dict[tuple[int, int], WaitingPass] = {}
        self._arrivals = 0
        self._batches = 0
        self._cohort: set[int] = set()  # whom the last batch woke
        self._awake: set[int] = set()  # those of them that have not parked since
        self._slices: Counter[int] = Counter()  # CPU slices of each since then
        self._gathered = trio.Event()
        self._lost: WorkerLost | None = None

    # --- the handle: what queues and instances call

    def track(self, forward: ForwardPass) -> None:
        """From now on the pass pins its pages; it must be submitted next."""
        if self._lost is not None:
            raise self._lost
        self._tracked.setdefault(forward.owner.number, {})[forward] = None
        self._pools[ResourceKind.KV_PAGE].pin(forward.pins)
        self._pools[ResourceKind.EMBEDDING].pin(forward.embed_pins)

    def submit_nowait(self, forward: ForwardPass) -> None:
        """Raises `trio.WouldBlock` when the inbox is full."""
        self._send.send_nowait(InboxMessage(forward))

    async def submit(self, forward: ForwardPass) -> None:
        await self._send.send(InboxMessage(forward))

    async def ping(self, reply: Reply[str]) -> None:
        """An empty batch through the worker and back."""
        await self._send.send(InboxMessage(Ping(reply)))

    def writes_elsewhere(self, owner: Owner, queue: int, pages: set[PageId]) -> bool:
        """Whether a pass of another queue of this owner is still to write one of these pages."""
        return any(
            forward.queue != queue and not pages.isdisjoint(written_slots(forward))
            for forward in self._tracked.get(owner.number, ())
        )

    def has_work(self, owner: Owner) -> bool:
        return bool(self._tracked.get(owner.number))

    def drop_owner(self, owner: Owner) -> None:
        """Synchronous: what this owner has waiting leaves; what is in flight keeps its pins."""
        for forward in self._tracked.pop(owner.number, {}):
            if forward not in self._in_flight:
                self._unpin(forward)
            if not forward.reply.is_filled:
                forward.reply.refuse(Terminated("the instance has ended"))
        self._waiting = [w for w in self._waiting if w.forward.owner != owner]
        for key in [key for key in self._queue_tails if key[0] == owner.number]:
            del self._queue_tails[key]
        self.parked(owner)

    def parked(self, owner: Owner) -> None:
        """The instance has nothing to do but wait: the next batch need not wait for it."""
        self._awake.discard(owner.number)
        if not self._awake:
            self._gathered.set()

    def woke(self, owner: Owner) -> None:
        if owner.number in self._cohort:
            self._awake.add(owner.number)

    def used_slice(self, owner: Owner) -> None:
        """It goes on computing: after a few slices the next batch waits for it no more."""
        if owner.number in self._awake:
            self._slices[owner.number] += 1
            if self._slices[owner.number] >= self._limits.gather_slices:
                self._cohort.discard(owner.number)
                self.parked(owner)

    def close(self, lost: WorkerLost) -> None:
        """The generation is over: every pass of it is refused."""
        self._lost = lost
        tracked, self._tracked = self._tracked, {}
        for passes in tracked.values():
            for forward in passes:
                self._unpin(forward)
                if not forward.reply.is_filled:
                    forward.reply.refuse(lost)
        self._waiting.clear()
        self._in_flight.clear()
        for ping in self._pings:
            ping.reply.refuse(lost)

    # --- the loop

    async def run(self, link: WorkerLink) -> None:
        """Until the worker is lost or the scope ends."""
        while self._lost is None:
            await self._gather()
            self._drain_inbox()
            plan = self._next_plan()
            if not plan.chunks and not self._pings:
                await self._wait_for_more(plan.ask_again_at)
                continue
            try:
                await self._execute(link, plan)
            except WorkerLost:
                return  # the supervisor closes this generation

    async def _gather(self) -> None:
        """Waits until everybody whom the last batch woke has submitted, parked or died.

        A loop that dispatched the first arrival at once would split a cohort of 32 into 1 + 31.
        """
        if self._awake and self._batching.trigger is BatchTrigger.ADAPTIVE:
            share = self._limits.gather_share * self.counts.last_seconds
            with trio.move_on_after(max(share, self._limits.gather_seconds_min)):
                while self._awake:
                    self._gathered = trio.Event()
                    await self._gathered.wait()
                    for _ in range(HOPS):
                        await trio.lowlevel.checkpoint()
        self._cohort.clear()
        self._awake.clear()

    def _drain_inbox(self) -> None:
        while True:
            try:
                self._accept(self._receive.receive_nowait())
            except trio.WouldBlock:
                return

    async def _wait_for_more(self, deadline: float | None) -> None:
        with trio.move_on_at(float("inf") if deadline is None else deadline):
            self._accept(await self._receive.receive())

    def _accept(self, envelope: InboxMessage) -> None:
        message = envelope.content
        if isinstance(message, Ping):
            self._pings.append(message)
            return
        if message not in self._tracked.get(message.owner.number, ()):
            return  # its owner died while it was on the way
        waiting = WaitingPass(message, self._arrivals, self._all_before(message))
        self._arrivals += 1
        self._waiting.append(waiting)
        self._queue_tails[message.owner.number, message.queue] = waiting
        for page in written_slots(message):
            self._page_writers[page] = waiting
        for _, slot in message.embed_outputs:
            self._embedding_writers[slot] = waiting

    def _all_before(self, forward: ForwardPass) -> tuple[WaitingPass, ...]:
        """The last pass of its queue, and the writers of what it reads, in whatever queue."""
        slots = [-1 - token for token in forward.tokens if token < 0]
        candidates = [
            self._queue_tails.get((forward.owner.number, forward.queue)),
            *(self._page_writers.get(page) for page in forward.pages),
            *(self._embedding_writers.get(slot) for slot in slots),
        ]
        found = {item.arrival: item for item in candidates if item and not item.has_left}
        return tuple(found.values())

    def _next_plan(self) -> Plan:
        now = trio.current_time()
        return next_batch(self._waiting, self._batching, self._limits, self._budget, now)

    async def _execute(self, link: WorkerLink, plan: Plan) -> None:
        started = trio.current_time()
        rows = sum(chunk.end - chunk.first for chunk in plan.chunks)
        batch = self._dispatch(plan)
        pings, self._pings = self._pings, []
        self._ports.emit(BatchDispatched(started, self._name, batch.number, len(plan.chunks), rows))
        try:
            result = await link.execute(batch)
        except WorkerLost as lost:
            for ping in pings:
                ping.reply.refuse(lost)
            raise
        seconds = trio.current_time() - started
        if plan.chunks:
            self.counts.note(len(plan.chunks), rows, seconds)
        self._settle(plan, result)
        for ping in pings:
            ping.reply.fill("pong")
        self._ports.emit(BatchSettled(trio.current_time(), self._name, batch.number, seconds))

    def _dispatch(self, plan: Plan) -> wire.Batch:
        self._in_flight = {chunk.waiting.forward for chunk in plan.chunks}
        copies = [
            pair
            for chunk in plan.chunks
            if chunk.first == 0
            for pair in chunk.waiting.forward.copies
        ]
        for chunk in plan.chunks:
            chunk.waiting.rows_done = chunk.end
            chunk.waiting.after = ()
        self._batches += 1
        self._waiting = [waiting for waiting in self._waiting if not waiting.has_left]
        return wire.Batch(
            self._generation,
            self._batches,
            tuple(copies),
            tuple(request_for(chunk) for chunk in plan.chunks),
        )

    def _settle(self, plan: Plan, result: wire.BatchResult) -> None:
        """Gives the answers out: straight to the askers, no mailbox upwards."""
        self._in_flight = set()
        assert len(result.answers) == len(plan.chunks), "a batch has an answer for each request"
        for chunk, answer in zip(plan.chunks, result.answers, strict=True):
            self._settle_chunk(chunk, answer)
        self._awake = set(self._cohort)
        self._slices.clear()

    def _settle_chunk(self, chunk: Chunk, answer: wire.Answer) -> None:
        forward = chunk.waiting.forward
        tracked = self._tracked.get(forward.owner.number, {})
        if forward not in tracked:  # its owner died meanwhile
            self._collected.pop(forward, None)
            self._unpin(forward)
            return
        if answer.error is None:
            self._collected.setdefault(forward, Collected()).add(chunk, answer)
            if not chunk.waiting.has_left:
                return
        collected = self._collected.pop(forward, None)
        del tracked[forward]
        self._unpin(forward)
        self._cohort.add(forward.owner.number)
        if answer.error is None:
            assert collected is not None, "a pass that settles has been answered"
            forward.reply.fill(collected.result(forward))
        else:
            self._fail(chunk.waiting, PassFailed(f"forward pass: {answer.error}"))

    def _fail(self, waiting: WaitingPass, error: PassFailed) -> None:
        waiting.rows_done = len(waiting.forward.tokens)
        self._waiting = [item for item in self._waiting if item is not waiting]
        waiting.forward.reply.refuse(error)
        if not waiting.forward.outputs:  # nobody will look at it
            self._on_fault(waiting.forward.owner, error)

    def _unpin(self, forward: ForwardPass) -> None:
        self._pools[ResourceKind.KV_PAGE].unpin(forward.pins)
        self._pools[ResourceKind.EMBEDDING].unpin(forward.embed_pins)
