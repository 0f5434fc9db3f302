"""The link to one generation of a worker: its process, its socket, its heartbeats.

Owns the only correlation table of the system: batch number -> the `execute` that waits for it.
When the worker dies (seen through its pidfd at once), hangs (no heartbeat) or speaks nonsense,
every waiting `execute` raises `WorkerLost`, and so does every later one. However the scope ends,
no process is left behind: drain, a bounded wait, terminate, kill.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Protocol

import attrs
import trio
import zmq

from gpu_worker import wire
from gpu_worker.life import life_path
from pie_trio.config import Limits, ModelSettings
from pie_trio.errors import WorkerLost, retold
from pie_trio.mailbox import Reply
from pie_trio.ports import Ports
from pie_trio.services.worker_answers import OnPart, Parts, greeting_fault, in_one
from pie_trio.services.worker_process import ProcessLike, WorkerProcess, worker_command
from pie_trio.services.zmq_socket import TrioSocket, open_router

REASON_CHARACTERS = 1000  # of what a worker says about its own end


@attrs.frozen
class WorkerSpec:
    """What a launcher must know to start a worker."""

    settings: ModelSettings
    directory: Path  # of the model
    limits: Limits
    ports: Ports

    @property
    def wire_limits(self) -> wire.WorkerLimits:
        return wire.WorkerLimits(
            page_size=self.limits.page_tokens,
            kv_bytes_max=self.limits.kv_bytes_max,
            pages_max=self.settings.pages_max,
            embeddings=self.limits.embeddings,
            batch_tokens_max=self.limits.batch_tokens,
            distribution_max=self.limits.distribution_max,
        )


class WorkerLink(Protocol):
    """One living generation."""

    async def wait_ready(self) -> wire.Hello | WorkerLost:
        """The end of the handshake, or why the worker cannot start: a value, not an exception."""
        ...

    async def execute(self, batch: wire.Batch, on_part: OnPart = in_one) -> wire.BatchResult:
        """The last part of its answers; those before it go to `on_part` as they come. Raises
        `WorkerLost`. Cancelled: the batch may still run; its answers are dropped."""
        ...

    def halt(self) -> bool:
        """Synchronous: a batch of several steps ends with the step under way, or later. False:
        there was no room to say so, and it ends by itself."""
        ...

    async def wait_lost(self) -> WorkerLost:
        """Returns when the worker is lost, with the reason."""
        ...


WorkerLauncher = Callable[[WorkerSpec, int], AbstractAsyncContextManager[WorkerLink]]


@attrs.frozen(eq=False)
class InFlight:
    """A batch that the worker has, and who waits for its end."""

    parts: Parts
    reply: Reply[wire.BatchResult]


class LocalLink:
    """A worker process of this machine, joined over a private ipc socket."""

    def __init__(self, spec: WorkerSpec, generation: int) -> None:
        self._model = spec.settings.name
        self._generation = generation
        self._limits = spec.limits
        self._start = wire.Start(generation, spec.ports.engine_seed, spec.wire_limits)
        self._waiting: dict[int, InFlight] = {}
        self._unanswered: dict[int, int] = {}  # batches that it has, wanted or not; parts told
        self._lost: WorkerLost | None = None
        self._lost_event = trio.Event()
        self._ready: Reply[wire.Hello] = Reply()
        self._signs_of_life = 0
        self._work_identity = f"{generation}:work".encode()
        self.socket: TrioSocket | None = None

    async def execute(self, batch: wire.Batch, on_part: OnPart = in_one) -> wire.BatchResult:
        if self._lost is not None:
            raise retold(self._lost)
        reply: Reply[wire.BatchResult] = Reply()
        self._waiting[batch.number] = InFlight(Parts(batch, on_part, reply.fill), reply)
        self._unanswered[batch.number] = 0
        try:
            await self._send(batch)
            return await reply.answer()
        finally:
            del self._waiting[batch.number]

    def halt(self) -> bool:
        """Nobody waits for room: a batch that is not told ends by itself."""
        assert self.socket is not None, "a link speaks only while its socket is open"
        if self._lost is None:
            with suppress(zmq.ZMQError, trio.ClosedResourceError):  # `execute` will notice
                return self.socket.send_nowait([self._work_identity, wire.to_frame(wire.Halt())])
        return False

    async def wait_lost(self) -> WorkerLost:
        await self._lost_event.wait()
        assert self._lost is not None, "the event is set with the reason"
        return self._lost

    async def wait_ready(self) -> wire.Hello | WorkerLost:
        with trio.move_on_after(self._limits.worker_start_seconds):
            await self._ready.wait()
        if not self._ready.is_filled:
            bound = self._limits.worker_start_seconds
            self.lose(f"not ready within worker_start_seconds = {bound:g} s")
        return self._lost or self._ready.take()

    def lose(self, reason: str) -> None:
        """The worker is lost; only the first reason counts."""
        if self._lost is not None:
            return
        reason = reason[:REASON_CHARACTERS]
        self._lost = WorkerLost(f"worker of {self._model} lost: {reason}")
        for in_flight in self._waiting.values():
            if not in_flight.reply.is_filled:
                in_flight.reply.refuse(self._lost)
        if not self._ready.is_filled:
            self._ready.refuse(self._lost)
        self._lost_event.set()

    async def _send(self, message: wire.Message) -> None:
        assert self.socket is not None, "a link speaks only while its socket is open"
        try:
            await self.socket.send_multipart([self._work_identity, wire.to_frame(message)])
        except (zmq.ZMQError, trio.ClosedResourceError) as error:
            self.lose(f"cannot send ({error})")

    async def receive(self) -> None:
        """Reads what the worker sends until the scope ends, also while there is no room to send."""
        assert self.socket is not None, "a link listens only while its socket is open"
        async with trio.open_nursery() as greetings:
            await self.socket.receive(partial(self._hear, greetings))

    def _hear(self, greetings: trio.Nursery, parts: list[bytes]) -> None:
        self._signs_of_life += 1
        try:
            message = wire.from_frame(wire.only_frame(parts[1:]))  # behind the sender's identity
        except wire.WireError as error:
            self.lose(f"it sent a message that is none ({error})")
        else:
            self._take(message, greetings)

    async def _welcome(self, join: wire.Join) -> None:
        if join.protocol == wire.PROTOCOL:
            await self._send(self._start)
        else:
            self.lose(f"it speaks protocol {join.protocol}, this engine {wire.PROTOCOL}")

    def _take(self, message: wire.Message, greetings: trio.Nursery) -> None:
        match message:
            case wire.Join():
                greetings.start_soon(self._welcome, message)
            case wire.Hello():
                self._take_greeting(message)
            case wire.BatchResult():
                self._take_result(message)
            case wire.Heartbeat() | wire.Drained():
                pass
            case wire.Failed():
                self.lose(message.text)
            case _:
                self.lose(f"it sent a {type(message).__name__}, which is the engine's to send")

    def _take_greeting(self, hello: wire.Hello) -> None:
        if hello.generation != self._generation or self._ready.is_filled:
            return
        fault = greeting_fault(hello, self._start.limits)
        if fault is None:
            self._ready.fill(hello)
        else:
            self.lose(fault)

    def _take_result(self, result: wire.BatchResult) -> None:
        """An answer of another generation, or to a batch that nobody waits for, is dropped."""
        if result.generation != self._generation:
            return
        told = self._unanswered.pop(result.number, None)
        if result.goes_on and told is not None:
            self._unanswered[result.number] = told + 1
        in_flight = self._waiting.get(result.number)
        if in_flight is None or in_flight.reply.is_filled:
            return
        if fault := in_flight.parts.take(result, self._ready.take().vocab_size):
            self.lose(fault)

    async def watch_heartbeats(self) -> None:
        """A hang shows as silence, or as a batch without an end; the start has its own bound.

        Counted in beats: when this engine itself stood still, that was one beat, and what has
        piled up meanwhile is read before the next.
        """
        limits, beat = self._limits, self._limits.heartbeat_seconds
        silent = busy = 0.0
        await self._ready.wait()
        while self._lost is None:
            signs, unanswered = self._signs_of_life, self._unanswered.copy()
            await trio.sleep(beat)
            silent = silent + beat if signs == self._signs_of_life else 0.0
            busy = busy + beat if unanswered.items() & self._unanswered.items() else 0.0
            if silent > limits.heartbeat_lost_seconds:
                self.lose(f"no heartbeat for {silent:.1f} s")
            if busy > limits.batch_seconds_max:
                self.lose(f"a batch takes longer than {limits.batch_seconds_max:g} s")

    async def watch_signs_of_death(self, process: ProcessLike) -> None:
        """A large process takes its time to die. Whoever waits for it is told how it died, if it is
        gone within a moment, and otherwise that it is dying."""
        await self._ready.wait()
        if await process.wait_dying():
            await trio.sleep(self._limits.worker_dying_seconds)
            self.lose(f"its process {process.pid} is dying")

    async def watch_process(self, process: ProcessLike) -> None:
        await process.wait()
        await trio.lowlevel.checkpoint()  # what it said before it died is read first
        self.lose(process.epitaph())

    async def drain(self, process: ProcessLike) -> None:
        """Stops the worker: politely while it lives and has nothing to do, then the hard way."""
        grace = self._limits.grace_seconds
        with trio.move_on_after(grace, shield=True):
            if self._lost is None and self._ready.is_filled and not self._unanswered:
                await self._send(wire.Drain())
                await process.wait()
        process.kill()
        with trio.move_on_after(grace, shield=True):  # a driver may hold even the killed
            await process.wait()


CommandOf = Callable[[WorkerSpec, int, str], list[str]]  # of a worker, its generation, endpoint


@asynccontextmanager
async def open_local_worker(
    spec: WorkerSpec, generation: int, command: CommandOf | None = None
) -> AsyncIterator[WorkerLink]:
    """The launcher of production: a process of this machine."""
    link = LocalLink(spec, generation)
    with tempfile.TemporaryDirectory(prefix="pie-trio-") as private, zmq.Context() as context:
        endpoint = f"ipc://{private}/worker"
        arguments = (command or worker_command)(spec, generation, endpoint)
        async with (
            open_router(context, endpoint, spec.limits.worker_frame_bytes) as link.socket,
            open_process(link, lambda: WorkerProcess(arguments, life_path(endpoint))),
        ):
            yield link


@asynccontextmanager
async def open_process(link: LocalLink, start: Callable[[], ProcessLike]) -> AsyncIterator[None]:
    """The process and those who watch it. Left: it is gone, one way or the other."""
    try:
        process = start()
    except OSError as error:
        link.lose(f"its process cannot be started: {error}")
        yield
        return
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.receive)
            nursery.start_soon(link.watch_process, process)
            nursery.start_soon(link.watch_heartbeats)
            nursery.start_soon(link.watch_signs_of_death, process)
            yield
            nursery.cancel_scope.cancel()
    finally:
        await link.drain(process)
        process.close()
