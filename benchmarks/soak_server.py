"""A server in a process of its own, and what is left of it when it is killed.

It owns `pie-trio serve` with a log in a file. Every process that comes of it carries a mark in its
environment, so that one that was handed on to the system's own parent is found as well. Killed or
stopped: after `close` nothing that carries the mark is left.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from pie_trio.client import Client, RemoteError, ServerGone, open_client
from pie_trio.home import ENVIRONMENT_VARIABLE, Home

MARK = "PIE_TRIO_SOAK"
PRETEND = "pretend"
SLOW_STEP_SECONDS = 0.05
LOOK_SECONDS = 0.002
GONE_SECONDS = 10.0  # what is left then is told, and killed
GUESTS = 8
COMPILER = b"pie_trio.wasm.compile_child"
COMPILES_AFTER_SECONDS = 1.0  # of its CPU; the interpreter of Python programs takes many
STATE, USER_TICKS, BORN = 0, 11, 19  # places in what proc(5) tells of a process after its name
Record = dict[str, Any]


@attrs.frozen
class Process:
    """One process of the machine; its number alone may be another's a moment later."""

    pid: int
    born: str

    @property
    def command(self) -> bytes:
        return _read(f"/proc/{self.pid}/cmdline")

    @property
    def cpu_seconds(self) -> float:
        fields = _facts(self.pid)
        return int(fields[USER_TICKS]) / os.sysconf("SC_CLK_TCK") if fields else 0.0

    def lives(self) -> bool:
        fields = _facts(self.pid)
        return bool(fields) and fields[BORN] == self.born and fields[STATE] not in "ZX"


@attrs.define(eq=False)
class Server:
    """A server of its own; `address` once it listens."""

    process: subprocess.Popen[bytes]
    mark: str
    log: Path
    said: Path
    address: str = ""

    @classmethod
    def start(
        cls, room: Path, model: str | None, step_seconds: float, home: Path | None = None
    ) -> Server:
        """Of a stored model, or a pretend one whose steps last so long; maybe in its own home."""
        mark = uuid.uuid4().hex
        config = room / f"{mark}.toml"
        pretend = f"pretend = true\npretend_step_seconds = {step_seconds}\n"
        name = model or PRETEND
        config.write_text(f'[[model]]\nname = "{name}"\n{"" if model else pretend}', "utf-8")
        command = [sys.executable, "-m", "pie_trio", "serve", "--port", "0", "--log", "console"]
        environment = {**os.environ, MARK: mark}
        if home is not None:
            environment[ENVIRONMENT_VARIABLE] = str(home)
        log, said = room / f"{mark}.log", room / f"{mark}.out"
        with log.open("wb") as errors, said.open("wb") as output:
            process = subprocess.Popen(
                [*command, "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env=environment,
                start_new_session=True,
            )
        return cls(process, mark, log, said)

    async def wait_listening(self) -> None:
        with trio.fail_after(120):
            while not (found := re.search(rb"ws://\S+(?=\n)", self.said.read_bytes())):
                assert self.process.poll() is None, self.log.read_text("utf-8")
                await trio.sleep(0.02)
        self.address = found.group().decode()

    def processes(self) -> set[Process]:
        """All that carry the mark."""
        wanted = f"{MARK}={self.mark}".encode()
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        marked = [pid for pid in pids if wanted in _read(f"/proc/{pid}/environ")]
        facts = {pid: _facts(pid) for pid in marked}
        return {Process(pid, fields[BORN]) for pid, fields in facts.items() if fields}

    async def kill(self) -> Record:
        """SIGKILL; how long until nothing of it was left."""
        before = self.processes()
        killed = time.perf_counter()
        self.process.kill()
        alive = before
        while alive and time.perf_counter() < killed + GONE_SECONDS:
            await trio.sleep(LOOK_SECONDS)
            self.process.poll()
            alive = {process for process in before | self.processes() if process.lives()}
        return {
            "processes": len(before),
            "seconds": time.perf_counter() - killed,
            "left": sorted(process.command.decode(errors="replace") for process in alive),
        }

    async def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        with trio.move_on_after(30):
            while self.process.poll() is None:  # noqa: ASYNC110
                await trio.sleep(0.01)
        return self.close()

    def close(self) -> int:
        for process in self.processes():
            if process.lives():
                os.kill(process.pid, signal.SIGKILL)
        return self.process.wait()

    def rss_mib(self) -> float:
        pages = _read(f"/proc/{self.process.pid}/statm").split()
        return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20 if pages else 0.0


async def kill_servers(
    model: str | None, plan: dict[str, int], say: Callable[[str], object]
) -> list[Record]:
    """For each state as many kills as the plan says."""
    chance = random.Random(1)
    records = []
    with tempfile.TemporaryDirectory(prefix="pie-soak-") as folder:
        room = Path(folder)
        for state, count in plan.items():
            say(f"killing the server {count} times, {model or PRETEND}, {state}")
            records += [await _kill_one(model, state, room, chance) for _ in range(count)]
    return records


async def _kill_one(model: str | None, state: str, room: Path, chance: random.Random) -> Record:
    home = _empty_cache(room) if state == "compiling" else None
    server = Server.start(room, model, SLOW_STEP_SECONDS, home)
    try:
        async with _brought_to(server, state, chance):
            found = await server.kill()
        return {"model": model or PRETEND, "state": state, **found}
    finally:
        server.close()


@asynccontextmanager
async def _brought_to(server: Server, state: str, chance: random.Random) -> AsyncIterator[None]:
    """The server in that state, for as long as it is left alone."""
    if state == "starting":
        await trio.sleep(chance.uniform(0.2, 2.0))
        yield
        return
    await server.wait_listening()
    async with trio.open_nursery() as nursery:
        if state != "idle":
            await nursery.start(_keep_busy, server, state)
        await trio.sleep(chance.uniform(0, 0.2))
        yield
        nursery.cancel_scope.cancel()


async def _keep_busy(server: Server, state: str, task_status: trio.TaskStatus[None]) -> None:
    """Its client may see the server go: that is no failure."""
    try:
        async with open_client(server.address) as client:
            if state == "compiling":
                await _compile(client, server, task_status)
            else:
                await _generate(client, task_status)
    except* (ServerGone, RemoteError):
        pass


async def _compile(client: Client, server: Server, task_status: trio.TaskStatus[None]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.launch, "text-completion-py")
        while not any(_is_compiling(process) for process in server.processes()):  # noqa: ASYNC110
            await trio.sleep(0.01)
        task_status.started()


async def _generate(client: Client, task_status: trio.TaskStatus[None]) -> None:
    arguments = ("--prompt", "Tell a long story", "--max-tokens", "400")
    instances = [await client.launch("text-completion", arguments=arguments) for _ in range(GUESTS)]
    for instance in instances:
        await anext(instance)
    task_status.started()
    await trio.sleep_forever()


def _is_compiling(process: Process) -> bool:
    """It has read the program: before that, the end of its input would end it too."""
    return COMPILER in process.command and process.cpu_seconds >= COMPILES_AFTER_SECONDS


def _empty_cache(room: Path) -> Path:
    """A home in which nothing was compiled yet."""
    root = Path(tempfile.mkdtemp(prefix="home-", dir=room))
    for name in ("interpreter", "models"):
        (root / name).symlink_to(getattr(Home.default(), name), target_is_directory=True)
    return root


def _facts(pid: int) -> list[str]:
    """What the kernel tells after its name; nothing of one that is gone."""
    stat = _read(f"/proc/{pid}/stat").decode(errors="replace")
    return stat[stat.rindex(")") + 2 :].split() if ")" in stat else []


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""
