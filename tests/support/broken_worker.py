"""A worker process that does one thing wrong; the rest is the pretend worker.

It is started in place of `python -m gpu_worker`, with the name of its fault as the last argument.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable

import attrs
import zmq

from gpu_worker.pretend import Pace, PretendExecutor, PretendModel
from gpu_worker.wire import (
    PROTOCOL,
    Answer,
    BatchArrays,
    BatchResult,
    Drain,
    Heartbeat,
    Hello,
    Join,
    Message,
    Start,
    from_frame,
    to_frame,
)

BadResult = Callable[[BatchResult], BatchResult]


def _with_answers(*answers: Answer) -> BadResult:
    return lambda result: attrs.evolve(result, answers=answers)


BAD_RESULTS: dict[str, BadResult] = {
    "no answer": _with_answers(),
    "too many answers": _with_answers(*([Answer((70,), (), None)] * 9)),
    "no token": _with_answers(Answer((), (), None)),
    "a token too many": _with_answers(Answer((70, 71), (), None)),
    "a distribution nobody asked for": _with_answers(Answer((70,), (([1], [1.0]),), None)),
    "a negative token": _with_answers(Answer((-3,), (), None)),
    "a token beyond the vocabulary": _with_answers(Answer((10**6,), (), None)),
}
BAD_HELLOS: dict[str, dict[str, int]] = {
    "pages of no tokens": {"page_size": 0},
    "a million million pages": {"pages": 10**12},
    "batches of nothing": {"batch_tokens_max": 0},
    "another protocol": {"protocol": PROTOCOL + 1},
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--generation", type=int, required=True)
    parser.add_argument("fault")
    options, _ = parser.parse_known_args(arguments)
    if options.fault == "never joins":
        time.sleep(600)
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.IDENTITY, f"{options.generation}:work".encode())
        socket.connect(options.endpoint)
        return Worker(socket, options.generation, options.fault).serve()


@attrs.define(eq=False)
class Worker:
    """One life; every deviation is a line that asks for its name."""

    socket: zmq.Socket[bytes]
    generation: int
    fault: str

    def serve(self) -> int:
        self._send(Join(PROTOCOL + (self.fault == "joins with another protocol"), os.getpid()))
        start = from_frame(self.socket.recv())
        assert isinstance(start, Start)
        if self.fault == "dies in the handshake":
            sys.stderr.write("no such device\n")
            return 3
        if self.fault == "garbage":
            self.socket.send_multipart([b"\xc1 this is no header"])
        if self.fault == "speaks for the engine":
            self._send(Drain())
        executor = PretendExecutor(PretendModel(), start.limits, Pace())
        facts = attrs.asdict(executor.facts) | {"protocol": PROTOCOL}
        facts |= BAD_HELLOS.get(self.fault, {})
        self._send(Hello(generation=self.generation, pid=os.getpid(), **facts))
        if self.fault != "no heartbeat":
            threading.Thread(target=self._beat, daemon=True).start()
        while isinstance(batch := from_frame(self.socket.recv()), BatchArrays):
            self._answer(executor.execute(batch))
        if self.fault == "will not be drained":
            time.sleep(600)
        return 0

    def _answer(self, result: BatchResult) -> None:
        if self.fault == "never answers":
            return
        if self.fault == "stale and double answers":
            other = tuple(attrs.evolve(a, tokens=(35,)) for a in result.answers)
            self._send(attrs.evolve(result, generation=self.generation + 1, answers=other))
            self._send(attrs.evolve(result, number=result.number + 7, answers=other))
            self._send(result)
            self._send(attrs.evolve(result, answers=other))
            self._send(attrs.evolve(result, number=result.number - 1, answers=other))
            return
        if any(answer.tokens for answer in result.answers):
            result = BAD_RESULTS.get(self.fault, lambda same: same)(result)
        self._send(result)

    def _beat(self) -> None:
        """On a socket of its own, as a real worker does."""
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(self.socket.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode())
            while True:
                socket.send(to_frame(Heartbeat(self.generation, None, 0.0)))
                time.sleep(0.1)

    def _send(self, message: Message) -> None:
        self.socket.send(to_frame(message))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
