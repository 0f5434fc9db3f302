"""Which task runs next: the one module that knows how Trio decides, and decides in its place.

Trio sorts the runnable tasks by age and asks its random generator to shuffle them, once its own
switch for deterministic scheduling is on. A `Scheduler` takes that generator's place, so the same
seed gives the same order in every process, and a recorded order can be played again. It also keeps
away what else would differ between two runs: garbage is collected between runs only, and what
production hands to a thread is called in place. When `in_control` is left, everything is as before;
it must never be nested. `tests/test_trio_contract.py` holds the pinned Trio to all this.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal, TypeVar, cast

import attrs
import trio
import trio.lowlevel
from trio._core import MockClock, _run  # type: ignore[attr-defined]  # see `in_control`

T = TypeVar("T")
Mode = Literal["shuffle", "walk", "pct", "fifo"]
MODES: Final[tuple[Mode, ...]] = ("shuffle", "walk", "pct")
PCT_CHANGES: Final = 3  # moments at which the most urgent task becomes the least urgent one
PCT_STEPS: Final = 600  # among so many steps
PCT_FAIRNESS: Final = 50  # so often it does so anyway, or a task that spins starves the rest
HOLD_SHARE: Final = 0.15  # of the runnable tasks, with jitter


@attrs.define(eq=False)
class Scheduler:
    """Decides and records; with `replay`, repeats decisions and then takes the first of each."""

    seed: int
    mode: Mode = "shuffle"
    jitter: bool = False  # tasks may be held back for a turn, as by a checkpoint in their way
    replay: Sequence[int] | None = None
    picks: list[int] = attrs.field(factory=list, init=False)
    _random: random.Random = attrs.field(init=False)
    _urgency: dict[trio.lowlevel.Task, float] = attrs.field(factory=dict, init=False)
    _least: int = attrs.field(default=0, init=False)
    _steps: int = attrs.field(default=0, init=False)
    _changes: set[int] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._random = random.Random(f"{self.seed}/{self.mode}")
        self._changes = set(self._random.sample(range(PCT_STEPS), PCT_CHANGES))

    # --- what Trio calls

    def random(self) -> float:
        return 1.0

    def uniform(self, first: float, _last: float) -> float:
        return first

    def shuffle(self, batch: list[trio.lowlevel.Task]) -> None:
        """Orders the runnable tasks in place; Trio takes the last one first.

        Trio also calls this in turns in which nobody is runnable.
        """
        if len(batch) < 2 or self.mode == "fifo":
            return
        if self.mode == "shuffle":
            self._shuffle(batch)
            if self.jitter:
                self._hold_back(batch)
        else:
            kept = batch.pop(self._pick(batch))
            _run_queue().extend(batch)
            batch[:] = [kept]

    # --- decisions: every one is a number below a bound, and 0 is the plain order

    def _decide(self, bound: int, proposed: int) -> int:
        pick = proposed
        if self.replay is not None:
            number = len(self.picks)
            recorded = self.replay[number] if number < len(self.replay) else 0
            pick = min(recorded, bound - 1)
        self.picks.append(pick)
        return pick

    def _shuffle(self, batch: list[trio.lowlevel.Task]) -> None:
        draw = self._random.randrange
        for last in range(len(batch) - 1, 0, -1):
            other = last - self._decide(last + 1, draw(last + 1))
            batch[last], batch[other] = batch[other], batch[last]

    def _hold_back(self, batch: list[trio.lowlevel.Task]) -> None:
        chance = self._random.random
        wanted = sum(chance() < HOLD_SHARE for _ in batch)
        held = self._decide(len(batch), min(wanted, len(batch) - 1))
        _run_queue().extend(batch[:held])
        del batch[:held]

    def _pick(self, batch: list[trio.lowlevel.Task]) -> int:
        count = len(batch)
        is_walk = self.mode == "walk"
        return self._decide(
            count, self._random.randrange(count) if is_walk else self._most_urgent(batch)
        )

    def _most_urgent(self, batch: list[trio.lowlevel.Task]) -> int:
        for task in batch:
            self._urgency.setdefault(task, 1 + self._random.random())
        best = max(range(len(batch)), key=lambda index: self._urgency[batch[index]])
        self._steps += 1
        if self._steps in self._changes or self._steps % PCT_FAIRNESS == 0:
            self._least -= 1
            self._urgency[batch[best]] = self._least
            best = max(range(len(batch)), key=lambda index: self._urgency[batch[index]])
        return best


def virtual_clock() -> trio.abc.Clock:
    """Jumps to the next deadline when everybody waits; asked often, so it answers quickly."""
    clock = cast("Any", MockClock(autojump_threshold=0))
    clock.current_time = lambda: clock._virtual_base  # its rate is 0: only jumps change it
    return cast("trio.abc.Clock", clock)


def _run_queue() -> Any:
    return _run.GLOBAL_RUN_CONTEXT.runner.runq


@contextmanager
def garbage_between_runs() -> Iterator[None]:
    """While open, runs collect their garbage when it is due, and Python does not after each."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@contextmanager
def in_control(scheduler: Scheduler) -> Iterator[None]:
    """While open, every `trio.run` of this thread is decided by the scheduler."""
    names = cast("Any", _run)
    before = names._r, names._ALLOW_DETERMINISTIC_SCHEDULING
    run_sync = trio.to_thread.run_sync
    names._r, names._ALLOW_DETERMINISTIC_SCHEDULING = scheduler, True
    trio.to_thread.run_sync = cast("Any", _call_in_place)
    try:
        with garbage_between_runs():
            yield
    finally:
        names._r, names._ALLOW_DETERMINISTIC_SCHEDULING = before
        trio.to_thread.run_sync = run_sync


async def _call_in_place(function: Callable[..., T], *arguments: Any, **_options: Any) -> T:
    """What a thread would do between two checkpoints, because its answer comes later."""
    await trio.lowlevel.checkpoint()
    result = function(*arguments)
    await trio.lowlevel.cancel_shielded_checkpoint()
    return result
