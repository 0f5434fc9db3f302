"""A worker process that is a Trio task: the pretend executor, the real wire, the real link.

Everything on the controller's side is production code: `LocalLink`, `TrioSocket`, the heartbeats,
the watch over the process, the drain. Only the process and the ZeroMQ socket are played, with their
faults: it dies before or after executing, hangs, is slow, answers nonsense; its messages are lost,
late, doubled, reordered, torn. A dead worker says nothing more, but what it had said arrives.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import attrs
import trio
import zmq

from gpu_worker import wire
from gpu_worker.multi_step import Steps
from gpu_worker.pretend import Pace, PretendExecutor, PretendModel
from gpu_worker.serve import execute_or_explain
from pie_trio.services.worker_link import LocalLink, WorkerLink, WorkerSpec, open_process
from pie_trio.services.zmq_socket import open_socket
from pie_trio.testing.faults import FaultPlan
from pie_trio.testing.sim_process import SimProcess, WorkerPace
from pie_trio.testing.sim_socket import Frames, SimSocket

SLOW_SECONDS = 40.0  # at most
LATE_SECONDS = 3.0
UNREAD_MESSAGES = 64  # of the controller's, which sends one batch at a time
ECHO_SECONDS = 0.03  # a copy that comes while the next batch is executed
REFUSAL = "out of memory, says the fault plan"  # how a pass is refused


@attrs.define(eq=False)
class SimWorker:
    """One generation of a worker: what `gpu_worker.serve` and `gpu_worker.watch` do, and faults."""

    spec: WorkerSpec
    generation: int
    pace: WorkerPace
    plan: FaultPlan
    outside: trio.Nursery
    on_batch: Callable[[SimWorker, wire.BatchArrays | None], None]
    process: SimProcess = attrs.field(init=False)
    socket: SimSocket = attrs.field(init=False)
    batch: wire.BatchArrays | None = attrs.field(default=None, init=False)  # being executed
    _batch_began: float = attrs.field(default=0.0, init=False)
    _hangs: bool = attrs.field(default=False, init=False)
    _held: wire.Message | None = attrs.field(default=None, init=False)  # comes after the next one
    _to_worker: trio.MemorySendChannel[Frames] = attrs.field(init=False)
    _from_link: trio.MemoryReceiveChannel[Frames] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.process = SimProcess(
            1000 + self.generation, self.pace, trio.CancelScope(), self.outside.start_soon
        )
        self.socket = SimSocket(self._receive, self._send_fault)
        self._to_worker, self._from_link = trio.open_memory_channel[Frames](UNREAD_MESSAGES)

    # --- its life

    async def run(self) -> None:
        with self.process.life:
            async with trio.open_nursery() as threads:
                threads.start_soon(self._beat, name="heartbeat")
                if self.plan.awaits("worker.crash-idle"):
                    threads.start_soon(self._die_idle)
                await self._serve()
                threads.cancel_scope.cancel()
        self.process.die("gone with status 0")

    async def _serve(self) -> None:
        self._say(wire.Join(wire.PROTOCOL, self.process.pid))
        start = await self._hear()
        assert isinstance(start, wire.Start), "a controller that is joined answers with a start"
        await self._load()
        model = attrs.evolve(PretendModel.read(self.spec.directory), name=self.spec.settings.name)
        executor = PretendExecutor(model, start.limits, Pace())
        facts = executor.facts
        fields = {field.name: getattr(facts, field.name) for field in attrs.fields(type(facts))}
        if self.plan.strikes("worker.foreign-greeting"):
            fields["pages"] = -1
        self._say(
            wire.Hello(
                protocol=wire.PROTOCOL,
                generation=self.generation,
                pid=self.process.pid,
                **fields,
            )
        )
        while True:
            message = await self._hear()
            if isinstance(message, wire.Halt):
                continue
            if isinstance(message, wire.Drain):
                self._say(wire.Drained())
                return
            if not isinstance(message, wire.BatchArrays) or message.generation != self.generation:
                self._say(wire.Failed(f"a worker cannot serve {type(message).__name__}"))
                self.process.die("gone with status 1")
                return
            await self._execute(executor, message)

    async def _load(self) -> None:
        if self.plan.strikes("worker.never-starts"):
            await trio.sleep_forever()
        fault = self.plan.strikes("worker.start-slow")
        await trio.sleep(self.pace.start_seconds + (fault.size * SLOW_SECONDS if fault else 0))

    async def _beat(self) -> None:
        while True:
            if not self._hangs:
                number = None if self.batch is None else self.batch.number
                busy = 0.0 if number is None else trio.current_time() - self._batch_began
                beat = wire.Heartbeat(self.generation, number, busy)
                self.socket.deliver([f"{self.generation}:heartbeat".encode(), *_frames(beat)])
            await trio.sleep(self.spec.limits.heartbeat_seconds)

    async def _die_idle(self) -> None:
        for passing in range(100):
            await trio.sleep(0.05 * (passing + 1))
            if self.plan.strikes("worker.crash-idle"):
                self._crash()

    def _crash(self) -> None:
        self.process.die("killed by signal 11")

    # --- a batch

    async def _execute(self, executor: PretendExecutor, batch: wire.BatchArrays) -> None:
        self.batch, self._batch_began = batch, trio.current_time()
        self.on_batch(self, batch)
        strikes = self.plan.strikes
        if strikes("worker.crash-before"):
            self._crash()
        if strikes("worker.hang"):
            self._hangs = True
        if self._hangs or strikes("worker.stuck"):
            await trio.sleep_forever()
        await trio.sleep(slow.size * SLOW_SECONDS if (slow := strikes("worker.slow")) else 0)
        result = self._spoil(await self._step_by_step(executor, batch))
        self.batch = None
        self.on_batch(self, None)
        if strikes("worker.crash-after"):
            self._crash()
        await trio.lowlevel.checkpoint()
        self._say(result)

    async def _step_by_step(
        self, executor: PretendExecutor, batch: wire.BatchArrays
    ) -> wire.BatchResult:
        """As `gpu_worker.multi_step.execute_steps`, in Trio's time."""
        steps = Steps(batch, executor.facts.page_size)
        while True:
            seconds = self.pace.step_seconds + len(steps.batch.tokens) * self.pace.row_seconds
            await trio.sleep(seconds)
            result = execute_or_explain(executor, steps.batch, lambda _report: None)
            result = attrs.evolve(result, step_seconds=seconds)
            if not steps.take(result) or self._from_link.statistics().current_buffer_used:
                return steps.result()
            if steps.is_part_due:
                self._say(steps.part())
            if self.plan.strikes("worker.crash-between"):
                self._crash()

    def _spoil(self, result: wire.BatchResult) -> wire.BatchResult:
        failed = wire.Answer((), (), REFUSAL)
        answers = list(result.answers)
        one, whole = self.plan.strikes("worker.pass-fails"), self.plan.strikes("worker.batch-fails")
        if whole:
            answers = [failed for _ in answers]
        elif one and answers:
            answers[int(one.size * len(answers))] = failed
        return attrs.evolve(result, answers=tuple(answers))

    # --- the link

    def _receive(self, frames: Frames) -> None:
        """From the controller's socket; a dead process reads nothing."""
        if not self.process.how:
            self._to_worker.send_nowait(frames[1:])

    async def _hear(self) -> wire.Message | wire.BatchArrays:
        return wire.from_frame(wire.only_frame(await self._from_link.receive()))

    def _send_fault(self) -> int:
        busy = self.plan.strikes("link.busy")
        if busy:
            self.outside.start_soon(self._make_room, busy.size * LATE_SECONDS)
            return int(zmq.EAGAIN)
        return int(zmq.EHOSTUNREACH) if self.plan.strikes("link.gone") else 0

    async def _make_room(self, seconds: float) -> None:
        await trio.sleep(seconds)
        self.socket.make_room()

    def _say(self, message: wire.Message) -> None:
        """Through the faults of the link."""
        strikes = self.plan.strikes
        if strikes("link.drop"):
            return
        if isinstance(message, wire.BatchResult):
            message = self._falsified(message)
        if self._held is None and strikes("link.reorder"):
            self._held = message
            return
        late = strikes("link.delay")
        copies = 2 if strikes("link.duplicate") else 1
        frames = [f"{self.generation}:work".encode(), *self._torn(_frames(message))]
        for _ in range(copies):
            self._deliver(frames, late.size * LATE_SECONDS if late else 0.0)
        if echo := strikes("link.echo"):
            self._deliver(frames, echo.size * ECHO_SECONDS)
        if strikes("link.garbage"):  # right behind a good message
            self._deliver([frames[0], b"garbage"], 0.0)
        if self._held is not None:
            held, self._held = self._held, None
            self._deliver([frames[0], *_frames(held)], 0.0)

    def _falsified(self, result: wire.BatchResult) -> wire.BatchResult:
        stale = self.plan.strikes("link.stale")
        if stale:
            none = attrs.evolve(
                result, generation=self.generation - 1, answers=tuple(reversed(result.answers))
            )
            self._deliver([f"{self.generation}:work".encode(), *_frames(none)], 0.0)
        wrong = self.plan.strikes("link.wrong")
        if wrong and result.answers:
            return attrs.evolve(result, answers=_lie(result.answers, wrong.size))
        return result

    def _torn(self, frames: Frames) -> Frames:
        fault = self.plan.strikes("link.torn")
        if fault is None:
            return frames
        whole = b"".join(frames)
        cut = int(fault.size * len(whole))
        torn: Frames = []
        for frame in frames:
            torn.append(frame[:cut])
            cut -= len(frame)
            if cut <= 0:
                break
        return torn

    def _deliver(self, frames: Frames, seconds: float) -> None:
        if seconds:
            self.outside.start_soon(self._deliver_late, frames, seconds)
        else:
            self.socket.deliver(frames)

    async def _deliver_late(self, frames: Frames, seconds: float) -> None:
        await trio.sleep(seconds)
        self.socket.deliver(frames)


def _lie(answers: tuple[wire.Answer, ...], size: float) -> tuple[wire.Answer, ...]:
    """Some answers are left out, or one of them is empty."""
    if size < 0.5:
        return answers[: int(2 * size * len(answers))]
    return (*answers[:-1], attrs.evolve(answers[-1], tokens=()))


def _frames(message: wire.Message) -> Frames:
    return [wire.to_frame(message)]


@attrs.define(eq=False)
class SimWorkers:
    """The launcher of all workers of one run: `launch` is what `open_engine` wants.

    Their tasks live in `outside`, which no cancellation of the engine reaches: as real processes,
    they end by themselves or because somebody kills them.
    """

    plan: FaultPlan
    pace: WorkerPace
    outside: trio.Nursery
    on_batch: Callable[[SimWorker, wire.BatchArrays | None], None]
    started: list[SimWorker] = attrs.field(factory=list)

    @asynccontextmanager
    async def launch(self, spec: WorkerSpec, generation: int) -> AsyncIterator[WorkerLink]:
        link = LocalLink(spec, generation)
        worker = SimWorker(spec, generation, self.pace, self.plan, self.outside, self.on_batch)

        def start() -> SimProcess:
            if self.plan.strikes("worker.start-fails"):
                raise OSError("no memory, says the fault plan")
            self.started.append(worker)
            self.outside.start_soon(worker.run, name=f"worker process {worker.process.pid}")
            return worker.process

        async with (
            open_socket(cast("Any", worker.socket)) as link.socket,
            open_process(link, start),
        ):
            yield link
