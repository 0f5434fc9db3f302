"""The worker's main loop: read a batch, execute, answer.

Owns the work socket from `Join` to `Drained`. A batch that fails as a whole is answered with an
error for each of its requests, and the worker lives; a worker that cannot start says why.
It must never touch the socket of the watch thread, nor outlive the controller.
"""

import time
import traceback
from collections.abc import Callable

import attrs
import zmq

from gpu_worker.interface import Executor
from gpu_worker.multi_step import execute_steps
from gpu_worker.watch import Busy
from gpu_worker.wire import (
    PROTOCOL,
    Answer,
    BatchArrays,
    BatchResult,
    Drain,
    Drained,
    Failed,
    Halt,
    Hello,
    Join,
    Message,
    Start,
    WireError,
    WorkerLimits,
    from_frame,
    only_frame,
    to_frame,
)

ERROR_CHARACTERS_MAX = 1000
FAREWELL_MILLISECONDS = 1000
MAY_RECEIVE = int(zmq.POLLIN)

Report = Callable[[str], None]


@attrs.frozen
class Seat:
    """Where a worker serves, and as which generation."""

    endpoint: str
    generation: int
    pid: int


def serve(seat: Seat, load: Callable[[WorkerLimits], Executor], busy: Busy, report: Report) -> int:
    """Returns the exit code: 0 after a drain, 1 after a failure that was told."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.IDENTITY, f"{seat.generation}:work".encode())
        socket.setsockopt(zmq.LINGER, FAREWELL_MILLISECONDS)
        socket.connect(seat.endpoint)
        link = _Link(socket, busy)
        try:
            _serve(link, seat, load, report)
        except Exception as error:
            report(traceback.format_exc())
            link.send(Failed(_told(error)))
            return 1
        return 0


@attrs.frozen
class _Link:
    socket: zmq.Socket[bytes]
    busy: Busy

    def send(self, message: Message) -> None:
        self.socket.send(to_frame(message))
        self.busy.spoke_at = time.monotonic()

    def receive(self) -> Message:
        frames = self.socket.recv_multipart(copy=False)
        return from_frame(only_frame([frame.buffer for frame in frames]))

    def has_message(self) -> bool:
        return bool(int(self.socket.getsockopt(zmq.EVENTS)) & MAY_RECEIVE)


def _serve(
    link: _Link, seat: Seat, load: Callable[[WorkerLimits], Executor], report: Report
) -> None:
    link.send(Join(PROTOCOL, seat.pid))
    start = link.receive()
    if not isinstance(start, Start) or start.generation != seat.generation:
        raise WireError(f"expected Start of generation {seat.generation}, got {start!r:.200}")
    executor = load(start.limits)
    facts = attrs.asdict(executor.facts)
    link.send(Hello(protocol=PROTOCOL, generation=seat.generation, pid=seat.pid, **facts))
    while True:
        match link.receive():
            case BatchArrays() as batch if batch.generation == seat.generation:
                link.busy.batch = (batch.number, time.monotonic())
                link.send(_execute(executor, batch, link, report))
                link.busy.batch = None
            case Halt():
                pass  # what it was to end has ended by itself, or because of it
            case Drain():
                link.send(Drained())
                return
            case message:
                raise WireError(f"a worker cannot serve {message!r:.200}")


def _execute(executor: Executor, batch: BatchArrays, link: _Link, report: Report) -> BatchResult:
    """Whatever the controller says while several steps are executed ends them."""

    def step(batch: BatchArrays) -> BatchResult:
        return execute_or_explain(executor, batch, report)

    return execute_steps(step, executor.facts.page_size, batch, link.has_message, link.send)


def execute_or_explain(executor: Executor, batch: BatchArrays, report: Report) -> BatchResult:
    """A bug or a lack of memory costs this batch, not the pages of everybody else."""
    started = time.perf_counter()
    try:
        return executor.execute(batch)
    except Exception as error:
        report(traceback.format_exc())
        answers = (Answer((), (), _told(error)),) * batch.request_count
        step_seconds = time.perf_counter() - started
        return BatchResult(batch.generation, batch.number, step_seconds, answers)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:ERROR_CHARACTERS_MAX]
