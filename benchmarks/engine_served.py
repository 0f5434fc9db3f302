"""Our engine as its users have it: `pie-trio serve`, guests in it, a client over loopback.

Owns the server's process. A token counts at the moment when the client has read it. Between two
measurements the server and its worker are stopped like every other engine.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import attrs
import trio

from benchmarks.engine_link import PeerLost, signal_family
from benchmarks.engine_prompts import questions
from pie_trio.client import Client, open_client
from pie_trio.client.remote import PRINTED

START_SECONDS = 180.0
STOP_SECONDS = 15.0
PROGRAMS = {"c": "text-completion", "python": "text-completion-py"}
WARM_UP_TOKENS = 4


@attrs.frozen
class Arrival:
    """A request that comes `at` seconds after the start."""

    at: float
    question: str
    count: int


class Served:
    """A server of its own on a free port."""

    def __init__(self, model: str) -> None:
        command = [sys.executable, "-m", "pie_trio", "serve", "--port", "0", "--log", "off"]
        self._process = subprocess.Popen(
            [*command, "--model", model],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None, "it was opened with a pipe"
        line = self._process.stdout.readline()
        found = re.search(r"ws://\S+", line)
        if found is None:
            self.close()
            raise PeerLost("our server did not start")
        self._url = found.group()
        for kind in PROGRAMS:
            self.decode(kind, 1, WARM_UP_TOKENS)

    def decode(self, kind: str, guests: int, tokens: int) -> dict[str, Any]:
        """The tokens that the client read between the last first one and the first last one."""
        requests = [Arrival(0.0, question, tokens) for question in questions(guests)]
        times = self._serve(PROGRAMS[kind], requests)
        if not all(times):
            raise PeerLost("a guest said nothing")
        began, ended = max(each[0] for each in times), min(each[-1] for each in times)
        count = sum(began < moment <= ended for each in times for moment in each)
        return {"seconds": ended - began, "tokens": count}

    def arrivals(self, requests: Sequence[Arrival]) -> dict[str, Any]:
        return {"times": self._serve(PROGRAMS["c"], requests)}

    def close(self) -> None:
        signal_family(self._process.pid, signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            signal_family(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _serve(self, program: str, requests: Sequence[Arrival]) -> list[list[float]]:
        signal_family(self._process.pid, signal.SIGCONT)
        try:
            return trio.run(_read_all, self._url, program, requests)
        finally:
            signal_family(self._process.pid, signal.SIGSTOP)


async def _read_all(url: str, program: str, requests: Sequence[Arrival]) -> list[list[float]]:
    times: list[list[float]] = [[] for _ in requests]
    async with open_client(url) as client, trio.open_nursery() as nursery:
        started = time.perf_counter()
        for request, moments in zip(requests, times, strict=True):
            nursery.start_soon(_read_one, client, program, request, started, moments)
    return times


async def _read_one(
    client: Client, program: str, request: Arrival, started: float, moments: list[float]
) -> None:
    await trio.sleep(started + request.at - time.perf_counter() if request.at else 0.0)
    arguments = ("--prompt", request.question, "--max-tokens", str(request.count))
    instance = await client.launch(program, arguments=arguments)
    async for event in instance:
        if event.kind in PRINTED:
            moments.append(time.perf_counter() - started)
        elif event.kind == "error":
            raise PeerLost(f"a guest ended with {event.value}")
