"""A worker inside the test's own process: the pretend executor behind the real wire codec.

Its steps last as long as the script says, on Trio's clock; it dies before or after a batch when
it is told to. Each generation starts with empty pages, as a real one does.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs
import trio

from gpu_worker import wire
from gpu_worker.multi_step import Steps
from gpu_worker.pretend import Pace, PretendExecutor, PretendModel
from pie_trio.errors import WorkerLost, retold
from pie_trio.services.worker_answers import OnPart, in_one
from pie_trio.services.worker_link import WorkerLink, WorkerSpec


@attrs.define(eq=False)
class WorkerScript:
    """How the inline workers behave; a test may change it while they run."""

    step_seconds: float = 0.0
    row_seconds: float = 0.0
    dies_before_batch: int | None = None  # counted over all generations, from 1
    dies_after_batch: int | None = None
    dies_at_step: int | None = None  # of all batches, before anything of it is told
    halts_unheard: int = 0  # so many more
    fails_at_step: int | None = None  # every request of it is answered with an error
    never_starts: bool = False
    batches: list[wire.Batch] = attrs.field(factory=list)  # all that were executed or begun
    started: int = 0
    step_rows: list[int] = attrs.field(factory=list)  # of each step that was executed

    @property
    def steps(self) -> int:
        """How many were executed, of all batches."""
        return len(self.step_rows)


class InlineLink:
    """Implements `WorkerLink`."""

    def __init__(self, spec: WorkerSpec, generation: int, script: WorkerScript) -> None:
        self._script = script
        self._generation = generation
        model = attrs.evolve(PretendModel.read(spec.directory), name=spec.settings.name)
        self._executor = PretendExecutor(model, spec.wire_limits, Pace())
        self._lost: WorkerLost | None = None
        self._is_called = False
        self._lost_event = trio.Event()

    async def wait_ready(self) -> wire.Hello | WorkerLost:
        if self._script.never_starts:
            return WorkerLost("the script says that this worker never starts")
        facts = self._executor.facts
        fields = {field.name: getattr(facts, field.name) for field in attrs.fields(type(facts))}
        return wire.Hello(
            protocol=wire.PROTOCOL, generation=self._generation, pid=os.getpid(), **fields
        )

    async def execute(self, batch: wire.Batch, on_part: OnPart = in_one) -> wire.BatchResult:
        if self._lost is not None:
            raise retold(self._lost)
        self._script.batches.append(batch)
        number = len(self._script.batches)
        if number == self._script.dies_before_batch:
            self.die()
        arrays = wire.decode(wire.encode(batch))
        assert isinstance(arrays, wire.BatchArrays), "a batch arrives as arrays"
        self._is_called = False
        steps = Steps(arrays, self._executor.facts.page_size)
        while True:
            seconds = await self._last(len(steps.batch.tokens))
            self._script.step_rows.append(len(steps.batch.tokens))
            if self._script.steps == self._script.dies_at_step:
                raise retold(self.die())
            result = self._executor.execute(steps.batch)
            result = attrs.evolve(result, step_seconds=seconds)
            if self._script.steps == self._script.fails_at_step:
                failed = wire.Answer((), (), "the script says so")
                result = attrs.evolve(result, answers=(failed,) * len(result.answers))
            if not steps.take(result) or self._is_called:
                break
            if steps.is_part_due:
                on_part(_arrived(steps.part()))
        if number == self._script.dies_after_batch:
            raise retold(self.die())
        return _arrived(steps.result())

    async def _last(self, rows: int) -> float:
        seconds = self._script.step_seconds + rows * self._script.row_seconds
        await trio.sleep(seconds)
        if self._lost is not None:
            raise retold(self._lost)
        return seconds

    def halt(self) -> bool:
        is_unheard = self._script.halts_unheard > 0
        self._script.halts_unheard -= is_unheard
        self._is_called = not is_unheard
        return self._is_called

    async def wait_lost(self) -> WorkerLost:
        await self._lost_event.wait()
        assert self._lost is not None, "the event is set with the reason"
        return self._lost

    def die(self, reason: str = "the script says so") -> WorkerLost:
        if self._lost is None:
            self._lost = WorkerLost(f"inline worker lost: {reason}")
            self._lost_event.set()
        return self._lost


def _arrived(result: wire.BatchResult) -> wire.BatchResult:
    answered = wire.decode(wire.encode(result))
    assert isinstance(answered, wire.BatchResult), "what comes back is a result"
    return answered


def inline_launcher(
    script: WorkerScript, links: list[InlineLink] | None = None
) -> Callable[[WorkerSpec, int], AbstractAsyncContextManager[WorkerLink]]:
    """A launcher of inline workers; `links` receives each one, so that a test may kill it."""

    @asynccontextmanager
    async def launch(spec: WorkerSpec, generation: int) -> AsyncIterator[WorkerLink]:
        script.started += 1
        link = InlineLink(spec, generation, script)
        if links is not None:
            links.append(link)
        yield link

    return launch
