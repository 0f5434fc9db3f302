"""Our engine as its users have it: `pie-trio serve`, guests in it, a client over loopback.

Owns the server's process. Guests ask for a token at a time, by passes; what streams cost is in
`pie-trio bench paper`. A token counts at the moment when the client has read it. Between two
measurements the server and its worker are stopped like every other engine. Where all guests come
at once the client only counts: a usual one would take processor time from the engine's cores.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from benchmarks.engine_link import PeerLost, signal_family
from benchmarks.listener import listen
from pie_trio.client import Client, open_client
from pie_trio.client.remote import PRINTED
from pie_trio.services.guest_build.c_component import build_c

START_SECONDS = 180.0
STOP_SECONDS = 15.0
HERE = Path(__file__).parent
SOURCES = {"c": HERE / "decode.c", "python": HERE / "decode.py"}
WARM_UP_TOKENS = 4


@attrs.frozen
class Arrival:
    """A request of so many prompt tokens that comes `at` seconds after the start."""

    at: float
    prompt: int
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
        self._programs = trio.run(_install, self._url)
        for kind in SOURCES:
            self.decode(kind, 1, WARM_UP_TOKENS, WARM_UP_TOKENS)

    def decode(self, kind: str, guests: int, prompt: int, tokens: int) -> float:
        """Tokens a second of all guests, each with `tokens` behind its first."""
        arguments = ("--prompt", str(prompt), "--tokens", str(tokens))
        with self._awake():
            try:
                times = listen(self._url, self._programs[kind], arguments, guests)
            except (AssertionError, OSError) as error:
                raise PeerLost(f"a guest or the server ended: {error}") from error
        if len(times) < guests or not all(len(each) > 1 for each in times):
            raise PeerLost("a guest said nothing")
        return rate_of(times)

    def arrivals(self, requests: Sequence[Arrival]) -> dict[str, Any]:
        with self._awake():
            return {"times": trio.run(_read_all, self._url, self._programs["c"], requests)}

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

    @contextmanager
    def _awake(self) -> Iterator[None]:
        signal_family(self._process.pid, signal.SIGCONT)
        try:
            yield
        finally:
            signal_family(self._process.pid, signal.SIGSTOP)


def rate_of(times: Sequence[Sequence[float]]) -> float:
    """Of guests whose every token is a message: while all of them decode."""
    began, ended = max(each[0] for each in times), min(each[-1] for each in times)
    return sum(began < moment <= ended for each in times for moment in each) / (ended - began)


async def _install(url: str) -> dict[str, str]:
    names = {}
    with tempfile.TemporaryDirectory(prefix="pie-bench-") as folder:
        async with open_client(url) as client:
            for kind, source in SOURCES.items():
                path = source
                if source.suffix == ".c":
                    path = Path(folder) / f"{source.stem}-c.wasm"
                    await trio.to_thread.run_sync(build_c, source.parent, source.name, path)
                names[kind] = await client.install_file(path, overwrite=True)
    return names


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
    arguments = ("--prompt", str(request.prompt), "--tokens", str(request.count))
    instance = await client.launch(program, arguments=arguments)
    async for event in instance:
        if event.kind in PRINTED:
            moments.append(time.perf_counter() - started)
        elif event.kind == "error":
            raise PeerLost(f"a guest ended with {event.value}")
