"""What every peer process speaks: one JSON line in, one JSON line out, over stdin and stdout.

It owns the real stdout; whatever an engine prints goes to stderr instead. Work that cannot be done
is answered with its error and the process lives; it ends when its stdin does, so it never outlives
who started it. It must import nothing but the standard library: every environment runs it.

Lines in: `decode` {sequences, context, steps}, `prefill` {tokens}, `greedy` {prompts, count} and
`arrivals` {requests: [{at, prompt, count}]}. The first line out tells version and configuration.
"""

from __future__ import annotations

import abc
import contextlib
import json
import os
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import IO, Any, Protocol

TOKEN_LOWEST, TOKEN_HIGHEST = 100, 40_000  # of made-up prompts: in every vocabulary here
ERROR_CHARACTERS = 300
Prompt = list[int]
Answer = dict[str, Any]


class Peer(Protocol):
    """Whatever answers lines: `works` are the methods that a line may name."""

    works: tuple[str, ...]

    def facts(self) -> Answer: ...


class Engine(abc.ABC):
    """One engine that computes greedily, without a prefix cache, on sequences handed in."""

    works = ("decode", "prefill", "greedy", "arrivals")

    @abc.abstractmethod
    def facts(self) -> Answer:
        """Its name, its version and how it is configured."""

    @abc.abstractmethod
    def submit(self, number: int, prompt: Prompt, count: int) -> None:
        """A sequence that shall get `count` tokens, whatever they are."""

    @abc.abstractmethod
    def poll(self, seconds: float) -> list[tuple[int, list[int]]]:
        """What is new, by sequence: computes a step, or waits at most so long for one."""

    def clock(self) -> float:
        """Of the wall, so that scheduler and sampler are timed with the model."""
        return time.perf_counter()

    def decode(self, sequences: int, context: int, steps: int) -> Answer:
        """The time between every sequence's first token and the first sequence's last one."""
        run = _Run(self)
        for prompt in made_up(sequences, context):
            run.submit(prompt, steps + 1)
        while not all(run.tokens.values()):
            run.poll()
        began, before = self.clock(), run.count()
        while all(len(tokens) <= steps for tokens in run.tokens.values()):
            run.poll()
        seconds, tokens = self.clock() - began, run.count() - before
        run.finish()
        return {"seconds": seconds, "tokens": tokens}

    def prefill(self, tokens: int) -> Answer:
        """From handing in the prompt to its first token."""
        [prompt] = made_up(1, tokens)
        began = self.clock()
        run = _Run(self)
        run.submit(prompt, 1)
        run.finish()
        return {"seconds": self.clock() - began, "tokens": tokens}

    def greedy(self, prompts: list[Prompt], count: int) -> Answer:
        run = _Run(self)
        for prompt in prompts:
            run.submit(prompt, count)
        run.finish()
        return {"tokens": list(run.tokens.values())}

    def arrivals(self, requests: list[dict[str, Any]]) -> Answer:
        """Each request comes at its second; the moments of its tokens, from the same start."""
        run = _Run(self)
        times: list[list[float]] = [[] for _ in requests]
        started, coming = time.perf_counter(), 0
        while coming < len(requests) or run.is_busy:
            now = time.perf_counter() - started
            while coming < len(requests) and requests[coming]["at"] <= now:
                run.submit(requests[coming]["prompt"], requests[coming]["count"])
                coming += 1
            pause = requests[coming]["at"] - now if coming < len(requests) else 1.0
            if not run.is_busy:
                time.sleep(max(pause, 0.0))
                continue
            for index, tokens in run.poll(pause):
                times[index] += [time.perf_counter() - started] * len(tokens)
        return {"times": times}


def speak(open_peer: Callable[[], Peer]) -> None:
    """Serves until stdin ends."""
    with _own_stdout() as out:
        started = time.perf_counter()
        peer = open_peer()
        _say(out, {**peer.facts(), "load_seconds": time.perf_counter() - started})
        for line in sys.stdin:
            try:
                answer = _work(peer, json.loads(line))
            except Exception as error:
                traceback.print_exc()
                answer = {"error": f"{type(error).__name__}: {error}"[:ERROR_CHARACTERS]}
            _say(out, answer)


@contextlib.contextmanager
def _own_stdout() -> Iterator[IO[str]]:
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        yield out


def _say(out: IO[str], answer: Answer) -> None:
    out.write(json.dumps(answer) + "\n")
    out.flush()


def _work(peer: Peer, order: Answer) -> Answer:
    name = order.pop("op")
    if name not in peer.works:
        raise ValueError(f"unknown work {name!r}")
    answer: Answer = getattr(peer, name)(**order)
    return answer


class _Run:
    """Sequences handed in together, numbered from nought; numbers at the engine never repeat."""

    def __init__(self, engine: Engine) -> None:
        self.tokens: dict[int, list[int]] = {}
        self._engine = engine
        self._wanted: dict[int, int] = {}
        self._first = time.monotonic_ns()

    @property
    def is_busy(self) -> bool:
        return any(len(self.tokens[index]) < count for index, count in self._wanted.items())

    def submit(self, prompt: Prompt, count: int) -> None:
        index = len(self._wanted)
        self._wanted[index] = count
        self.tokens[index] = []
        self._engine.submit(self._first + index, prompt, count)

    def poll(self, seconds: float = 1.0) -> list[tuple[int, list[int]]]:
        found = [(number - self._first, tokens) for number, tokens in self._engine.poll(seconds)]
        for index, tokens in found:
            self.tokens[index] += tokens
        return found

    def finish(self) -> None:
        while self.is_busy:
            self.poll()

    def count(self) -> int:
        return sum(len(tokens) for tokens in self.tokens.values())


def made_up(sequences: int, length: int) -> list[Prompt]:
    """Never the same twice, so that no cache of prefixes helps."""
    return [
        [random.randint(TOKEN_LOWEST, TOKEN_HIGHEST) for _ in range(length)]
        for _ in range(sequences)
    ]
