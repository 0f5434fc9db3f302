"""The link to one generation of a worker: its process, its socket, its heartbeats.

Owns the only correlation table of the system: batch number -> the `execute` that waits for it.
When the worker dies (seen through its pidfd at once), hangs (no heartbeat) or speaks nonsense,
every waiting `execute` raises `WorkerLost`, and so does every later one. However the scope ends,
no process is left behind: drain, a bounded wait, terminate, kill.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

import attrs
import trio
import zmq

from gpu_worker import wire
from pie_trio.config import Limits, ModelSettings
from pie_trio.errors import WorkerLost
from pie_trio.mailbox import Reply
from pie_trio.ports import Ports
from pie_trio.services.zmq_socket import TrioSocket, open_router


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

    async def execute(self, batch: wire.Batch) -> wire.BatchResult:
        """Raises `WorkerLost`. Cancelled: the batch may still run; its answer is dropped."""
        ...

    async def wait_lost(self) -> WorkerLost:
        """Returns when the worker is lost, with the reason."""
        ...


WorkerLauncher = Callable[[WorkerSpec, int], AbstractAsyncContextManager[WorkerLink]]


class LocalLink:
    """A worker process of this machine, joined over a private ipc socket."""

    def __init__(self, model: str, generation: int, limits: Limits) -> None:
        self._model = model
        self._generation = generation
        self._limits = limits
        self._waiting: dict[int, Reply[wire.BatchResult]] = {}
        self._lost: WorkerLost | None = None
        self._lost_event = trio.Event()
        self._ready: Reply[wire.Hello] = Reply()
        self._drained = trio.Event()
        self._last_sign = trio.current_time()
        self._work_identity = f"{generation}:work".encode()
        self._batch_since: float | None = None
        self.socket: TrioSocket | None = None

    async def execute(self, batch: wire.Batch) -> wire.BatchResult:
        if self._lost is not None:
            raise self._lost
        reply: Reply[wire.BatchResult] = Reply()
        self._waiting[batch.number] = reply
        self._batch_since = trio.current_time()
        try:
            await self._send(batch)
            return await reply.answer()
        finally:
            self._batch_since = None
            self._waiting.pop(batch.number, None)

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
        self._lost = WorkerLost(f"worker of {self._model} lost: {reason}")
        for reply in self._waiting.values():
            if not reply.is_filled:
                reply.refuse(self._lost)
        if not self._ready.is_filled:
            self._ready.refuse(self._lost)
        self._lost_event.set()

    async def _send(self, message: wire.Message) -> None:
        assert self.socket is not None, "a link speaks only while its socket is open"
        try:
            await self.socket.send_multipart([self._work_identity, *wire.encode(message)])
        except (zmq.ZMQError, trio.ClosedResourceError) as error:
            self.lose(f"cannot send ({error})")

    async def receive(self, start: wire.Start) -> None:
        """Reads what the worker sends until the scope ends."""
        assert self.socket is not None, "a link listens only while its socket is open"
        while True:
            _identity, *frames = await self.socket.recv_multipart()
            self._last_sign = trio.current_time()
            try:
                message = wire.decode(frames)
            except wire.WireError as error:
                self.lose(f"it sent a message that is none ({error})")
                return
            if isinstance(message, wire.Join):
                await self._welcome(message, start)
            else:
                self._take(message)

    async def _welcome(self, join: wire.Join, start: wire.Start) -> None:
        if join.protocol != wire.PROTOCOL:
            self.lose(f"it speaks protocol {join.protocol}, this engine {wire.PROTOCOL}")
            return
        await self._send(start)

    def _take(self, message: wire.Message) -> None:
        match message:
            case wire.Hello():
                if message.generation == self._generation and not self._ready.is_filled:
                    self._ready.fill(message)
            case wire.BatchResult():
                reply = self._waiting.get(message.number)
                current = message.generation == self._generation
                if current and reply is not None and not reply.is_filled:
                    reply.fill(message)
            case wire.Heartbeat():
                pass
            case wire.Drained():
                self._drained.set()
            case wire.Failed():
                self.lose(message.text)
            case _:
                self.lose(f"it sent a {type(message).__name__}, which is the engine's to send")

    async def watch_heartbeats(self) -> None:
        """A hang shows as silence, or as a batch without an end."""
        while True:
            await trio.sleep(self._limits.heartbeat_seconds)
            now = trio.current_time()
            if now - self._last_sign > self._limits.heartbeat_lost_seconds:
                self.lose(f"no heartbeat for {now - self._last_sign:.1f} s")
            since = self._batch_since
            if since is not None and now - since > self._limits.batch_seconds_max:
                self.lose(f"a batch takes longer than {self._limits.batch_seconds_max:g} s")

    async def watch_process(self, process: WorkerProcess) -> None:
        await process.wait()
        await trio.lowlevel.checkpoint()  # what it said before it died is read first
        self.lose(process.epitaph())

    async def drain(self, process: WorkerProcess) -> None:
        """Stops the worker: politely while it lives and has nothing to do, then the hard way."""
        with trio.move_on_after(self._limits.grace_seconds, shield=True):
            if self._lost is None and self._ready.is_filled and not self._waiting:
                await self._send(wire.Drain())
                await process.wait()
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


class WorkerProcess:
    """A child process seen through its pidfd; any number of tasks may wait for its end."""

    def __init__(self, command: Sequence[str], errors: Path) -> None:
        self._errors = errors
        with errors.open("wb") as sink:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=sink,
                start_new_session=True,  # a Ctrl-C in the terminal is the engine's business
            )
        self._pidfd = os.pidfd_open(self._popen.pid)

    @property
    def pid(self) -> int:
        return self._popen.pid

    async def wait(self) -> None:
        if self._popen.poll() is not None:
            return
        own = os.dup(self._pidfd)  # Trio lets one task wait on a descriptor
        try:
            await trio.lowlevel.wait_readable(own)
        finally:
            os.close(own)
        self._popen.wait()

    def kill(self) -> None:
        if self._popen.poll() is None:
            self._popen.kill()

    def epitaph(self) -> str:
        """How it ended, with the last line that it wrote."""
        status = self._popen.returncode
        how = f"killed by signal {-status}" if status < 0 else f"gone with status {status}"
        lines = self._errors.read_text(errors="replace").strip().splitlines()
        return f"its process {self.pid} was {how}" + (f": {lines[-1]}" if lines else "")

    def close(self) -> None:
        os.close(self._pidfd)


@asynccontextmanager
async def open_local_worker(spec: WorkerSpec, generation: int) -> AsyncIterator[WorkerLink]:
    """The launcher of production: a process of this machine."""
    limits = spec.limits
    link = LocalLink(spec.settings.name, generation, limits)
    start = wire.Start(generation, spec.ports.engine_seed, spec.wire_limits)
    with tempfile.TemporaryDirectory(prefix="pie-trio-") as private, zmq.Context() as context:
        endpoint = f"ipc://{private}/worker"
        async with (
            open_router(context, endpoint, limits.worker_frame_bytes) as link.socket,
            trio.open_nursery() as nursery,
        ):
            process = WorkerProcess(
                worker_command(spec, generation, endpoint), Path(private, "errors")
            )
            try:
                nursery.start_soon(link.receive, start)
                nursery.start_soon(link.watch_process, process)
                nursery.start_soon(link.watch_heartbeats)
                yield link
            finally:
                await link.drain(process)
                nursery.cancel_scope.cancel()
                process.close()


def worker_command(spec: WorkerSpec, generation: int, endpoint: str) -> list[str]:
    command = [
        *(sys.executable, "-m", "gpu_worker", "--endpoint", endpoint),
        *("--generation", str(generation), "--model", str(spec.directory)),
        *("--parent", str(os.getpid())),
    ]
    if spec.settings.pretend:
        command += [
            "--pretend",
            *("--step-seconds", str(spec.settings.pretend_step_seconds)),
            *("--step-row-seconds", str(spec.settings.pretend_row_seconds)),
        ]
    return command
