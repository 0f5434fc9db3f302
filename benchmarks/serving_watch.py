"""Watches a worker link from the controller's side: when each batch was asked for and answered.

It stands between the model loop and the real link and changes nothing. The time between an answer
and the next question is the controller's; what is left of a question's time beside the step itself
is the link's: encode, send, receive, decode, on both sides.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs

from gpu_worker import wire
from pie_trio.errors import WorkerLost
from pie_trio.services.worker_answers import OnPart, in_one
from pie_trio.services.worker_link import WorkerLauncher, WorkerLink, WorkerSpec


@attrs.frozen
class Step:
    """A batch, or a part of one, which is asked for when the one before it is there: wall times,
    this process's CPU then, and how long the executor took.
    """

    asked: float
    answered: float
    seconds: float
    rows: int
    passes: int
    cpu_asked: float
    cpu: float
    tokens: int  # that were drawn, or distributions in their place


@attrs.define(eq=False)
class Observed:
    """All steps since they were cleared last."""

    steps: list[Step] = attrs.field(factory=list)


@attrs.frozen(eq=False)
class WatchedLink:
    """Implements `WorkerLink`."""

    link: WorkerLink
    observed: Observed

    async def wait_ready(self) -> wire.Hello | WorkerLost:
        return await self.link.wait_ready()

    async def wait_lost(self) -> WorkerLost:
        return await self.link.wait_lost()

    def halt(self) -> bool:
        return self.link.halt()

    async def execute(self, batch: wire.Batch, on_part: OnPart = in_one) -> wire.BatchResult:
        begun = time.perf_counter(), time.process_time()
        rows = sum(len(request.tokens) for request in batch.requests)

        def note(part: wire.BatchResult) -> None:
            nonlocal begun
            (asked, cpu_asked), ended = begun, (time.perf_counter(), time.process_time())
            tokens = sum(len(each.tokens) or len(each.distributions) for each in part.answers)
            passes, seconds = len(part.answers), part.step_seconds
            step = Step(asked, ended[0], seconds, rows, passes, cpu_asked, ended[1], tokens)
            self.observed.steps.append(step)
            begun = ended

        def on_each(part: wire.BatchResult) -> None:
            note(part)
            on_part(part)

        result = await self.link.execute(batch, on_each)
        note(result)
        return result


def observing(
    launch: Callable[[WorkerSpec, int], AbstractAsyncContextManager[WorkerLink]],
    observed: Observed,
) -> WorkerLauncher:
    """The same launcher, watched."""

    @asynccontextmanager
    async def watched(spec: WorkerSpec, generation: int) -> AsyncIterator[WorkerLink]:
        async with launch(spec, generation) as link:
            yield WatchedLink(link, observed)

    return watched


def window(steps: Sequence[Step], guests: int) -> list[Step]:
    """From the first to the last step in which all guests decode, with all between them."""
    whole = [place for place, step in enumerate(steps) if step.rows == step.passes == guests]
    assert len(whole) > 1, "all guests decode in some batches"
    return list(steps[whole[0] : whole[-1] + 1])
