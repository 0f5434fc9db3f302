"""Our own engine without its server: a real worker process, started and asked as the server does.

The clock is the worker's own: the seconds that its executor spent on the arrays of each batch, from
their arrival to their answers. What a controller costs is not in it; `end to end` measures that.
It runs in our environment, with the environment variables of production.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import attrs
import trio
from speak import Answer, Engine, Prompt, speak

import pie_trio
from gpu_worker import wire
from pie_trio.config import Limits, ModelSettings, Numeric
from pie_trio.errors import WorkerLost
from pie_trio.ports import Ports, RandomStreams
from pie_trio.services.worker_link import WorkerLink, WorkerSpec, open_local_worker

GREEDY = wire.SamplerKind.MULTINOMIAL
BATCH_TOKENS = 2048


@attrs.define
class Sequence:
    number: int
    pages: list[int]
    coming: Prompt  # tokens that are not in the pages yet
    held: int  # tokens that are
    left: int

    def request(self, page_size: int) -> wire.Request:
        total = self.held + len(self.coming)
        count = -(-total // page_size)
        return wire.Request(
            tokens=self.coming,
            positions=range(self.held, total),
            pages=self.pages[:count],
            last_page_length=total - (count - 1) * page_size,
            mask=None,
            outputs=(wire.OutputRow(len(self.coming) - 1, GREEDY, 0.0),),
            embed_outputs=(),
            seed=0,
        )


class Ours(Engine):
    """Everything that waits goes into the next batch, as in the server's loop."""

    def __init__(self, link: WorkerLink, hello: wire.Hello) -> None:
        self._link, self._hello = link, hello
        self._free = list(range(hello.pages))
        self._sequences: list[Sequence] = []
        self._batches = 0
        self._seconds = 0.0

    def facts(self) -> Answer:
        return {
            "engine": "pie-trio, bare",
            "version": pie_trio.__version__,
            "configuration": {"numeric": self._hello.numeric, "weights": "model.safetensors"},
        }

    def clock(self) -> float:
        return self._seconds

    def submit(self, number: int, prompt: Prompt, count: int) -> None:
        size = self._hello.page_size
        pages = [self._free.pop() for _ in range(-(-(len(prompt) + count) // size))]
        self._sequences.append(Sequence(number, pages, list(prompt), 0, count))

    def poll(self, _seconds: float) -> list[tuple[int, list[int]]]:
        taken = self._next_batch()
        requests = [each.request(self._hello.page_size) for each in taken]
        self._batches += 1
        batch = wire.Batch(self._hello.generation, self._batches, (), requests)
        result = trio.from_thread.run(self._link.execute, batch)
        self._seconds += result.step_seconds
        return [
            self._take(each, answer) for each, answer in zip(taken, result.answers, strict=True)
        ]

    def _next_batch(self) -> list[Sequence]:
        taken, rows = [], 0
        for each in self._sequences:
            if rows + len(each.coming) > self._hello.batch_tokens_max:
                break
            taken.append(each)
            rows += len(each.coming)
        return taken

    def _take(self, sequence: Sequence, answer: wire.Answer) -> tuple[int, list[int]]:
        if answer.error is not None:
            raise RuntimeError(answer.error)
        [token] = answer.tokens
        sequence.held += len(sequence.coming)
        sequence.coming = [token]
        sequence.left -= 1
        if not sequence.left:
            self._sequences.remove(sequence)
            self._free += sequence.pages
        return sequence.number, [token]


async def serve(spec: WorkerSpec) -> None:
    async with open_local_worker(spec, 1) as link:
        ready = await link.wait_ready()
        if isinstance(ready, WorkerLost):
            raise ready
        await trio.to_thread.run_sync(speak, lambda: Ours(link, ready))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--numeric", type=Numeric, default=Numeric.BF16)
    options = parser.parse_args()
    limits = attrs.evolve(Limits(), kv_bytes_max=1 << 30, batch_tokens=BATCH_TOKENS)
    ports = Ports(RandomStreams(1))
    settings = ModelSettings("bench", numeric=options.numeric)
    trio.run(serve, WorkerSpec(settings, options.model, limits, ports))


if __name__ == "__main__":
    main()
