"""Kills a model's worker in the middle of a batch, again and again, beside a model that lives.

Each round launches the victims, waits until all of them generate, launches the bystanders on the
other model, and sends SIGKILL while a batch is being executed. It keeps the moments as they were:
when the kernel was asked to kill, when the engine knew, when the last victim had its end. A call
that does not end within the deadline is counted and given up, so that the run goes on.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from gpu_worker import wire
from pie_trio.actors.instance import Instance
from pie_trio.config import Limits, ModelSettings, Settings
from pie_trio.engine import Engine, open_engine
from pie_trio.errors import WorkerLost
from pie_trio.events import BatchDispatched, BatchSettled, Event, WorkerStarted
from pie_trio.home import Home
from pie_trio.messages import InstanceEnded
from pie_trio.ports import Ports, RandomStreams
from pie_trio.services.worker_answers import OnPart, in_one
from pie_trio.services.worker_link import WorkerLink, WorkerSpec, open_local_worker

PROGRAM = "text-completion"
VICTIMS = 64
BYSTANDERS = 8
BYSTANDER_TOKENS = 60
VICTIM_TOKENS = 400  # more than it ever comes to
OTHER = "other"
STEP_SECONDS = {"victim": 0.03, OTHER: 0.01}
START_SECONDS = 120.0  # until all victims generate
END_SECONDS = 30.0  # a call that has not ended by then hangs
LAG_SECONDS = 0.005
EXPECTED_ENDS = ("WorkerLost", "hangs")
Record = dict[str, Any]


@attrs.frozen(eq=False)
class WatchedLink:
    """Implements `WorkerLink`: tells when the engine learnt that its worker is lost."""

    link: WorkerLink
    learnt: Callable[[], None]

    async def wait_ready(self) -> wire.Hello | WorkerLost:
        return await self.link.wait_ready()

    async def execute(self, batch: wire.Batch, on_part: OnPart = in_one) -> wire.BatchResult:
        return await self.link.execute(batch, on_part)

    def halt(self) -> bool:
        return self.link.halt()

    async def wait_lost(self) -> WorkerLost:
        lost = await self.link.wait_lost()
        self.learnt()
        return lost


@attrs.define(eq=False)
class Bench:
    """An engine of two models, and what is seen of it."""

    victim: str
    victims: int
    chance: random.Random
    engine: Engine | None = None
    process: int = 0  # of the victim's worker
    in_batch: bool = False
    known_at: float = 0.0

    def emit(self, event: Event) -> None:
        match event:
            case WorkerStarted() if event.model == self.victim:
                self.process = event.process
            case BatchDispatched() if event.model == self.victim:
                self.in_batch = True
            case BatchSettled() if event.model == self.victim:
                self.in_batch = False

    @asynccontextmanager
    async def launcher(self, spec: WorkerSpec, generation: int) -> AsyncIterator[WorkerLink]:
        async with open_local_worker(spec, generation) as link:
            if spec.settings.name == self.victim:
                yield WatchedLink(link, self._learnt)
            else:
                yield link

    def _learnt(self) -> None:
        self.known_at = trio.current_time()


@attrs.define(eq=False)
class Call:
    """One instance: how much it said and how it ended."""

    said: int = 0
    ended: InstanceEnded | None = None
    ended_at: float = 0.0


async def kill_workers(
    model: str | None, rounds: int, victims: int, home: Home, say: Callable[[str], object]
) -> Record:
    """As many rounds in one engine; `model` is a stored one, or None for a pretend one."""
    victim = model or "victim"
    settings = ModelSettings(victim)
    if model is None:
        settings = ModelSettings(victim, pretend=True, pretend_step_seconds=STEP_SECONDS["victim"])
    other = ModelSettings(OTHER, pretend=True, pretend_step_seconds=STEP_SECONDS[OTHER])
    limits = Limits(worker_restart_backoff_seconds=0.01)
    bench = Bench(victim, victims, random.Random(1))
    wanted = Settings(models=(settings, other), limits=limits, seed=1)
    ports = Ports(RandomStreams(1), emit=bench.emit)
    async with open_engine(wanted, ports, home, launcher=bench.launcher) as engine:
        bench.engine = engine
        expected = await _undisturbed(engine)
        found = []
        for number in range(rounds):
            found.append(await _round(bench, engine))
            if (number + 1) % 10 == 0 or model is not None:
                say(f"{victim}: killed {number + 1} of {rounds}")
            await engine.models[victim].wait_ready()
    return {"victims": victims, "expected": expected, "rounds": found}


async def _undisturbed(engine: Engine) -> list[str]:
    """What the bystanders say when nothing happens."""
    calls = [Call() for _ in range(BYSTANDERS)]
    async with trio.open_nursery() as nursery:
        for number, call in enumerate(calls):
            nursery.start_soon(_call, engine, OTHER, number, BYSTANDER_TOKENS, call)
    return [_text(call) for call in calls]


async def _round(bench: Bench, engine: Engine) -> Record:
    victims = [Call() for _ in range(bench.victims)]
    bystanders = [Call() for _ in range(BYSTANDERS)]
    lags: list[float] = []
    record: Record = {}
    with trio.move_on_after(START_SECONDS + END_SECONDS):
        async with trio.open_nursery() as nursery:
            for number, call in enumerate(victims):
                nursery.start_soon(_call, engine, bench.victim, number, VICTIM_TOKENS, call)
            await _until(lambda: all(call.said for call in victims))
            for number, call in enumerate(bystanders):
                nursery.start_soon(_call, engine, OTHER, number, BYSTANDER_TOKENS, call)
            await _until(lambda: all(call.said for call in bystanders))
            record = await _kill(bench, victims, bystanders)
            nursery.cancel_scope.deadline = trio.current_time() + END_SECONDS
            nursery.start_soon(_measure_lag, lags, [*victims, *bystanders])
    killed = record.get("killed_at", 0.0)
    return {
        **record,
        "known_at": bench.known_at,
        "told_at": max(call.ended_at for call in victims),
        "first_told_at": min((c.ended_at for c in victims if c.ended_at > killed), default=0.0),
        "lags": lags,
        "ends": [_end(call) for call in victims],
        "strangers": [_stranger(call) for call in victims if _end(call) not in EXPECTED_ENDS],
        "bystanders": [_text(call) for call in bystanders],
    }


async def _kill(bench: Bench, victims: list[Call], bystanders: list[Call]) -> Record:
    """Within a batch, at a moment by chance."""
    await trio.sleep(bench.chance.uniform(0, 0.8 * STEP_SECONDS["victim"]))
    await _until(lambda: bench.in_batch)
    record = {
        "live": sum(call.ended is None for call in victims),
        "bystanders_live": sum(call.ended is None for call in bystanders),
        "in_batch": bench.in_batch,
        "killed_at": trio.current_time(),
    }
    os.kill(bench.process, signal.SIGKILL)
    return record


async def _call(engine: Engine, model: str, number: int, tokens: int, call: Call) -> None:
    program = engine.programs.find(PROGRAM)
    assert program is not None, f"{PROGRAM} is shipped"
    arguments = (
        "--model",
        model,
        "--prompt",
        f"Tell a long story of {number} cats",
        "--max-tokens",
        str(tokens),
    )
    instance: Instance = await engine.launch(program, arguments, user="soak")
    reader = instance.outlet.attach()
    while events := await reader.next_events():
        call.said += len(events)
    call.ended = await instance.ended.answer()
    call.ended_at = trio.current_time()


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110
        await trio.sleep(0.001)


async def _measure_lag(lags: list[float], calls: list[Call]) -> None:
    """How late this very loop wakes: what the machine, not the engine, adds to every moment."""
    while any(call.ended is None for call in calls):
        asked = trio.current_time() + LAG_SECONDS
        await trio.sleep_until(asked)
        lags.append(trio.current_time() - asked)


def _text(call: Call) -> str:
    if call.ended is None or call.ended.error is not None:
        return f"no text: {_end(call)}"
    return call.ended.value


def _end(call: Call) -> str:
    """`hangs`, `return`, or the error's name."""
    if call.ended is None:
        return "hangs"
    return call.ended.error_kind or "return"


def _stranger(call: Call) -> str:
    """Of an end that nobody expects: what to look into."""
    assert call.ended is not None, "a call that hangs has no end"
    return f"{_end(call)} after {call.said} events: {call.ended.error or call.ended.value}"
