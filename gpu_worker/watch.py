"""The worker's second thread: it tells the controller that the process lives, and dies with it.

It speaks only where the main thread has been silent for a while: an answer is a sign of life too,
and to hear one more costs the controller half a millisecond. Owns a socket and a context of its
own, because a ZeroMQ socket must never be touched by two threads. Within a moment of the
controller's death the whole process is gone, whatever the main thread does: the parent is watched
through a pidfd. (PR_SET_PDEATHSIG is of no use: it follows the *thread* that forked, and a
controller may well fork from a pool thread that ends.) It must never wait for the main thread.
"""

import os
import select
import signal
import threading
import time

import attrs
import zmq

from gpu_worker.wire import Heartbeat, to_frame

INTERVAL_SECONDS = 1.0


@attrs.define
class Busy:
    """What the main thread does, for any thread to read: each of these is replaced whole."""

    batch: tuple[int, float] | None = None  # in execution, and when it began
    spoke_at: float = float("-inf")

    @property
    def silence(self) -> float:
        """Seconds since it has said something."""
        return time.monotonic() - self.spoke_at

    def heartbeat(self, generation: int) -> Heartbeat:
        batch = self.batch
        if batch is None:
            return Heartbeat(generation, None, 0.0)
        number, since = batch
        return Heartbeat(generation, number, time.monotonic() - since)


def start_watch(endpoint: str, generation: int, parent: int, busy: Busy) -> None:
    """Leaves a daemon thread behind that ends with the process, or ends the process.

    The controller tells its number: who asks the system may already get that of an orphanage.
    """
    try:
        parent_fd = os.pidfd_open(parent)
    except ProcessLookupError:
        os._exit(1)
    if os.getppid() != parent:
        os._exit(1)
    arguments = (endpoint, generation, parent_fd, busy)
    threading.Thread(target=_watch, args=arguments, name="watch", daemon=True).start()


def _watch(endpoint: str, generation: int, parent_fd: int, busy: Busy) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.IDENTITY, f"{generation}:heartbeat".encode())
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, 4)  # a heartbeat that nobody takes is worth nothing
        socket.connect(endpoint)
        poll = select.poll()
        poll.register(parent_fd, select.POLLIN)
        while True:
            wait = INTERVAL_SECONDS - busy.silence
            if wait <= 0:
                _beat(socket, busy.heartbeat(generation))
                wait = INTERVAL_SECONDS
            if poll.poll(wait * 1000):
                _end_group()


def _end_group() -> None:
    """A compiler of the kernels that runs just now ends with us, if the group is ours."""
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def _beat(socket: zmq.Socket[bytes], heartbeat: Heartbeat) -> None:
    try:
        socket.send(to_frame(heartbeat), zmq.DONTWAIT)
    except zmq.Again:
        return
