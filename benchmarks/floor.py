"""The least that a token by passes can cost: the libraries alone, without a product around them.

    python -m benchmarks.floor [--model NAME] [--rounds N] [--steps N] [--json FILE]

A program of Trio, ZeroMQ, msgpack and WebSocket does what cannot be left out. A worker process
computes real steps of the model; for each the controller wakes a task a sequence, which sends its
client a message and says what it wants next; then one message asks for the next step. Nothing is
checked, owned, ordered, or given back. What the executor does not compute is told beside its step.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import msgpack
import trio
import zmq
from trio_websocket import WebSocketConnection, WebSocketRequest, serve_websocket

from benchmarks.listener import UPGRADE
from pie_trio.home import Home
from pie_trio.services.model_store import ModelStore

SEQUENCES = (1, 32)
CONTEXT, PAGE = 48, 16
TEXT_BYTES = 120  # of a message that tells one token
WARM_STEPS = 5
Samples = dict[str, list[float]]
Row = tuple[int, int, list[int], int]  # what a task wants next: token, position, pages, slots


@attrs.define(eq=False)
class Controller:
    """Everything that a step needs: the way to the worker, and a task for each sequence."""

    worker: zmq.Socket[bytes]
    identity: bytes
    client: WebSocketConnection
    tokens: list[int]
    answered: list[trio.Event]
    wanted: list[Row] = attrs.field(factory=list)
    all_want: trio.Event = attrs.field(factory=trio.Event)

    async def sequence(self, place: int) -> None:
        """One task: it hears its token, tells it, and wants another."""
        position, pages = CONTEXT, [1, 2, 3, 4]
        while True:
            await self.answered[place].wait()
            self.answered[place] = trio.Event()
            position += 1
            self.wanted.append((self.tokens[place], position, pages, position % PAGE))
            if len(self.wanted) == len(self.tokens):
                self.all_want.set()
            await self.client.send_message(bytes(TEXT_BYTES))

    async def step(self, wanted: Sequence[Row]) -> tuple[float, float, float, list[Row]]:
        """Seconds of the executor, of the way there and back, and of the turn; what comes next."""
        asked = time.perf_counter()
        self.worker.send_multipart([self.identity, msgpack.packb(wanted)])
        _, message = await hear(self.worker)
        inside, tokens = msgpack.unpackb(message)
        answered = time.perf_counter()
        self.all_want = trio.Event()
        self.wanted.clear()
        self.tokens[:] = tokens
        for event in list(self.answered):
            event.set()
        await self.all_want.wait()
        turn = time.perf_counter() - answered
        return inside, answered - asked - inside, turn, list(self.wanted)


async def hear(worker: zmq.Socket[bytes]) -> list[bytes]:
    while True:
        try:
            return worker.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            await trio.lowlevel.wait_readable(int(worker.getsockopt(zmq.FD)))


async def measure(model: Path, rounds: int, steps: int) -> Samples:
    samples: Samples = {}
    for _ in range(rounds):
        for count in SEQUENCES:
            async with open_controller(model, count) as controller:
                for name, values in (await _steps(controller, steps)).items():
                    samples.setdefault(f"{name} {count}", []).extend(values)
    return samples


async def _steps(controller: Controller, steps: int) -> Samples:
    found: Samples = {"step": [], "link": [], "turn": [], "cpu": [], "over a step": []}
    wanted: list[Row] = [(0, CONTEXT, [1, 2, 3, 4], 0)] * len(controller.tokens)
    for number in range(WARM_STEPS + steps):
        cpu = time.process_time()
        inside, link, turn, wanted = await controller.step(wanted)
        values = (inside, link, turn, time.process_time() - cpu, (link + turn) / inside)
        if number >= WARM_STEPS:
            for kept, value in zip(found.values(), values, strict=True):
                kept.append(value)
    return found


@asynccontextmanager
async def open_controller(model: Path, count: int) -> AsyncIterator[Controller]:
    """The worker and the client are processes, as they are for the product."""
    clients: list[WebSocketConnection] = []
    has_client = trio.Event()

    async def serve(request: WebSocketRequest) -> None:
        clients.append(await request.accept())
        has_client.set()
        await trio.sleep_forever()

    start: Callable[..., Awaitable[Any]] = partial(serve_websocket, ssl_context=None)
    async with trio.open_nursery() as nursery:
        with (
            tempfile.TemporaryDirectory(prefix="pie-bench-") as folder,
            zmq.Context() as context,
            context.socket(zmq.ROUTER) as worker,
        ):
            endpoint = f"ipc://{folder}/worker"
            worker.bind(endpoint)
            server = await nursery.start(start, serve, "127.0.0.1", 0)
            with (
                process_of("worker", endpoint, str(model), str(count)),
                process_of("client", str(server.port)),
            ):
                await has_client.wait()
                identity, _ = await hear(worker)
                events = [trio.Event() for _ in range(count)]
                made = Controller(worker, identity, clients[0], [0] * count, events)
                for place in range(count):
                    nursery.start_soon(made.sequence, place)
                yield made
                nursery.cancel_scope.cancel()


@contextmanager
def process_of(*role: str) -> Iterator[None]:
    """One of the other two roles, until the block ends."""
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.floor", "--role", *role])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def work(endpoint: str, model: str, count: str) -> None:
    """Answers each message with a step of the model and its seconds."""
    from benchmarks.engine_step import LIMITS, Case  # loads torch, which only this role may need
    from gpu_worker.executor import load_executor
    from gpu_worker.kernel_choice import KernelChoice

    choice = KernelChoice("native", Home.default().root / "kernels", lambda _text: None)
    executor = load_executor(Path(model), LIMITS, choice)
    batch = Case(int(count), 1, CONTEXT - 1).batch()
    with zmq.Context() as context, context.socket(zmq.DEALER) as controller:
        controller.connect(endpoint)
        controller.send(b"ready")
        while True:
            msgpack.unpackb(controller.recv())
            started = time.perf_counter()
            answers = executor.execute(batch).answers
            seconds = time.perf_counter() - started
            tokens = [answer.tokens[0] for answer in answers]
            controller.send(msgpack.packb([seconds, tokens]))


def listen(port: str) -> None:
    """Hears all that it is told."""
    with socket.create_connection(("127.0.0.1", int(port))) as line:
        line.sendall(UPGRADE.encode())
        while line.recv(1 << 16):
            pass


def render(samples: Samples) -> str:
    """Medians."""
    lines = [
        "| sequences | step ms | link ms | turn ms | cpu ms | link and turn, % of a step |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for count in SEQUENCES:
        *times, share = (
            statistics.median(samples[f"{name} {count}"])
            for name in ("step", "link", "turn", "cpu", "over a step")
        )
        told = " | ".join(f"{seconds * 1e3:.2f}" for seconds in times)
        lines.append(f"| {count} | {told} | {share * 100:.1f} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="What the libraries alone cost a token by passes.")
    parser.add_argument("--model", default="smollm2-135m", help="a stored model's name")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60, help="of each round and number")
    parser.add_argument("--json", type=Path, help="write all samples there too")
    parser.add_argument("--role", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.role is not None:
        role, *rest = options.role
        if role == "worker":
            work(*rest)
        else:
            listen(*rest)
        return 0
    model = ModelStore(Home.default().models).open(options.model).path
    samples = trio.run(measure, model, options.rounds, options.steps)
    sys.stdout.write(render(samples))
    if options.json is not None:
        options.json.write_text(json.dumps(samples) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
