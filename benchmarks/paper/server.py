"""The served engine of the evaluation: a process with a gateway, and a line to its bench.

    python -m benchmarks.paper.server SPECIFICATION

It is `pie-trio serve` with two things added, both told by lines of JSON over stdin and stdout: what
its worker's batches took, and bare batches on that very worker while no guest runs. It ends when
stdin does, so it never outlives who started it. It must never serve anybody but its bench.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import cattrs
import trio

from benchmarks.batches import plain_requests
from benchmarks.serving_watch import Observed, observing
from gpu_worker import wire
from pie_trio.config import Batching, Limits, ModelSettings, Settings
from pie_trio.engine import Engine, open_engine
from pie_trio.home import Home
from pie_trio.ports import Ports, RandomStreams
from pie_trio.services.gateway import open_listeners, serve_gateway
from pie_trio.services.worker_link import WorkerLauncher, WorkerLink, WorkerSpec, open_local_worker

FIRST_BARE_NUMBER = 1 << 40  # no engine has made so many batches
Answer = dict[str, Any]


@attrs.frozen
class Specification:
    """What is served, from where, and how its batches are made."""

    model: ModelSettings
    home: str
    batching: Batching

    def to_text(self) -> str:
        return json.dumps(cattrs.unstructure(self))

    @classmethod
    def from_text(cls, text: str) -> Specification:
        return cattrs.structure(json.loads(text), cls)


@attrs.define(eq=False)
class Bare:
    """Batches without anybody around them: as many sequences as guests, a token a step."""

    links: list[WorkerLink]
    limits: Limits
    _number: int = FIRST_BARE_NUMBER

    async def run(self, sequences: int, steps: int, prompt: int) -> Answer:
        """Seconds of the executor, and from asking to answer, of each step after the prompts."""
        inside, outside = [], []
        for step in range(steps + 1):
            batch = self._batch(sequences, steps, prompt, step)
            started = time.perf_counter()
            result = await self.links[-1].execute(batch)
            outside.append(time.perf_counter() - started)
            inside.append(result.step_seconds)
            assert all(answer.error is None for answer in result.answers), result
        return {"inside": inside[1:], "outside": outside[1:]}

    async def rows(self, sequences: int, rows: int) -> Answer:
        """One step in which each of so many sequences reads so many rows."""
        result = await self.links[-1].execute(self._batch(sequences, 0, rows, 0))
        return {"seconds": result.step_seconds}

    def _batch(self, sequences: int, steps: int, prompt: int, step: int) -> wire.Batch:
        rows, page = 1 if step else prompt, self.limits.page_tokens
        self._number += 1
        requests = plain_requests(sequences, rows, prompt + step, page, prompt + steps)
        return wire.Batch(1, self._number, (), requests)


def keeping(links: list[WorkerLink]) -> WorkerLauncher:
    """The usual launcher; its links are kept for bare batches."""

    @asynccontextmanager
    async def kept(spec: WorkerSpec, generation: int) -> AsyncIterator[WorkerLink]:
        async with open_local_worker(spec, generation) as link:
            links.append(link)
            yield link

    return kept


@attrs.frozen(eq=False)
class Bench:
    """What may be asked over the line."""

    engine: Engine
    observed: Observed
    bare: Bare

    async def answer(self, question: Answer) -> Answer:
        match question.pop("ask"):
            case "bare":
                return await self.bare.run(**question)
            case "rows":
                return await self.bare.rows(**question)
            case "steps":
                steps, self.observed.steps[:] = list(self.observed.steps), []
                return {"steps": [attrs.asdict(step) for step in steps]}
            case "cpu":
                return {"cpu": time.process_time()}
        raise AssertionError(f"nobody knows how to answer {question}")


@asynccontextmanager
async def open_bench(specification: Specification) -> AsyncIterator[tuple[Bench, str]]:
    """The bench, and the address at which clients are served."""
    limits = Limits()
    settings = Settings(
        port=0,
        models=(specification.model,),
        batching=specification.batching,
        limits=limits,
        seed=1,
        log="off",
    )
    ports = Ports(RandomStreams(1))
    links: list[WorkerLink] = []
    observed = Observed()
    listeners = await open_listeners(settings.host, settings.port, limits)
    opening: AbstractAsyncContextManager[Engine] = open_engine(
        settings,
        ports,
        Home(Path(specification.home)),
        launcher=observing(keeping(links), observed),
    )
    async with opening as engine, trio.open_nursery() as nursery:
        nursery.start_soon(serve_gateway, engine, listeners, settings, ports)
        port = listeners[0].socket.getsockname()[1]
        yield Bench(engine, observed, Bare(links, limits)), f"ws://127.0.0.1:{port}"
        nursery.cancel_scope.cancel()


async def serve(specification: Specification) -> None:
    async with open_bench(specification) as (bench, address):
        _say({"address": address})
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            _say(await bench.answer(json.loads(line)))


def _say(answer: Answer) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    trio.run(serve, Specification.from_text(arguments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
