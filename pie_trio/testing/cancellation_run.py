"""One run of a Trio program that is cancelled at one chosen place, or at two.

Owns the run: a fresh `trio.run` on a virtual clock in a repeatable order, the world around the
program, the background fault beside it. However the run ends, an outcome is returned; nothing is
swallowed: what comes out of the program unasked is in the outcome.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

import attrs
import trio
from trio.testing import MockClock

from pie_trio.testing.cancellation_probe import Cancellation, Probe, Run, Victim, is_below
from pie_trio.testing.scheduler import Scheduler, in_control

TEXT_MAX: Final = 500  # characters of what one error says

Check = Callable[[Any], Awaitable[None] | None]


@asynccontextmanager
async def no_world() -> Any:
    yield None


@attrs.frozen
class Program:
    """What is run and cancelled, the world that it runs in, and what must hold afterwards."""

    scenario: Callable[..., Awaitable[Any]]
    world: Callable[[], AbstractAsyncContextManager[Any]] = no_world
    victim: Callable[[Any], Victim] | None = None  # the scenario itself, if none is named
    check: Check | None = None
    faults: Mapping[str, Callable[[Any], Awaitable[Any]]] = attrs.field(factory=dict)
    allowed: tuple[type[BaseException], ...] = ()  # what may come out of a cancelled scenario
    seed: int = 0  # of the order of tasks
    liveness_seconds: float = 3600.0  # virtual
    again: bool = True  # the world must be able to run the scenario once more

    async def play(self, world: Any) -> Any:
        return await (self.scenario() if self.world is no_world else self.scenario(world))


def run_once(program: Program, cancellation: Cancellation) -> Run:
    """Never raises for what the program does: it is in the outcome."""
    run = Run(cancellation)
    everything = trio.CancelScope()
    probe = Probe(run, everything.cancel)
    clock = MockClock(autojump_threshold=0)
    try:
        with in_control(Scheduler(program.seed)):
            trio.run(_live, program, probe, everything, clock=clock, instruments=[probe])
    except BaseException as error:
        wrong = [leaf for leaf in _leaves(error) if not isinstance(leaf, program.allowed)]
        run.wrong.extend(map(_told, wrong))
    return run


def _told(error: BaseException) -> str:
    """Its first line: what follows, such as pytest's explanations, differs from run to run."""
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:TEXT_MAX]


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


async def _live(program: Program, probe: Probe, everything: trio.CancelScope) -> None:
    run = probe._run
    with everything, trio.move_on_after(program.liveness_seconds) as life:
        async with program.world() as world, trio.open_nursery() as background:
            if run.cancellation.fault is not None:
                background.start_soon(program.faults[run.cancellation.fault], world)
            await _play(program, world, probe)
            background.cancel_scope.cancel()
            probe.victim = None
            await _look_after(program, world, run)
    if life.cancelled_caught:
        run.wrong.append(f"it hangs: no end within {program.liveness_seconds:g} virtual seconds")


async def _play(program: Program, world: Any, probe: Probe) -> None:
    """The scenario in a task of its own, so that what belongs to it can be told."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_play_alone, program, world, probe)


async def _play_alone(program: Program, world: Any, probe: Probe) -> None:
    with trio.CancelScope() as scope:
        task, gone = trio.lowlevel.current_task(), trio.Event()
        if program.victim is not None:
            probe.victim = program.victim(world)
        else:
            probe.victim = Victim(lambda each: is_below(each, task), scope.cancel, gone.is_set)
        try:
            await program.play(world)
        finally:
            gone.set()


async def _look_after(program: Program, world: Any, run: Run) -> None:
    """Nobody lives but the world: it must be whole, and fit for the same once more."""
    if program.check is not None:
        answer = program.check(world)
        if answer is not None:
            await answer
    if run.was_cancelled and program.again and run.cancellation.fault is None:
        await program.play(world)
