"""`cancel_everywhere`: cancels any Trio program at every place where it can be cancelled.

Owns the enumeration: the victim's suspensions are counted once, then there is one run for each of
them, one more for each step of the clean-up at which a second cancellation can come, and all of it
again beside each background fault. What it promises: a handle that names a failing run names the
same run again, in any process. It never stops at the first failure, and leaves nothing out
silently: what the time did not suffice for is counted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from time import perf_counter
from typing import Any

import attrs

from pie_trio.testing.await_sites import Site
from pie_trio.testing.cancellation_probe import Cancellation, Run, Victim
from pie_trio.testing.cancellation_run import Check, Program, no_world, run_once

__all__ = ["Cancellation", "Plan", "Report", "Run", "Victim", "cancel_everywhere", "replay"]

FAILURES_SHOWN = 20


@attrs.frozen
class Plan:
    """How much is enumerated. The defaults are what a test of a small program wants."""

    twice: bool = True  # a second cancellation at each step of each clean-up
    anybody: bool = False  # also between any two steps of others while the victim lives
    faults: bool = True  # all of it again beside each background fault
    faults_twice: bool = False  # the second cancellations, too
    stride: int = 1  # every so many-th place only
    shard: tuple[int, int] = (0, 1)  # this one of so many equal parts
    seconds: float | None = None  # of real time; what is left then is counted


@attrs.define
class Report:
    """What all the runs together show."""

    name: str
    runs: int = 0
    skipped: int = 0  # for want of time; those of clean-ups that were not seen are not known
    places: int = 0  # suspensions of the victim without faults
    seconds: float = 0.0
    failures: list[Run] = attrs.field(factory=list)
    by_mode: dict[str, int] = attrs.field(factory=dict)
    once: set[Site] = attrs.field(factory=set)  # where a task was told of a cancellation
    twice: set[Site] = attrs.field(factory=set)  # where it was told again, while it cleaned up
    cleaning: set[Site] = attrs.field(factory=set)  # where it stood meanwhile

    @property
    def holds(self) -> bool:
        return self.runs > 0 and not self.failures and not self.skipped

    def add(self, mode: str, run: Run) -> None:
        self.runs += 1
        self.by_mode[mode] = self.by_mode.get(mode, 0) + 1
        self.once |= run.once
        self.twice |= run.twice
        if not run.cancellation.again:  # nobody can be told a third time
            self.cleaning |= run.cleaning
        if run.wrong:
            self.failures.append(run)

    def merge(self, other: Report) -> None:
        """Shards and scenarios add up."""
        self.runs += other.runs
        self.skipped += other.skipped
        self.places += other.places
        self.seconds += other.seconds
        self.failures += other.failures
        self.once |= other.once
        self.twice |= other.twice
        self.cleaning |= other.cleaning
        for mode, count in other.by_mode.items():
            self.by_mode[mode] = self.by_mode.get(mode, 0) + count

    def text(self) -> str:
        modes = ", ".join(f"{count} {mode}" for mode, count in self.by_mode.items())
        lines = [
            f"{self.name}: {self.places} places, {self.runs} runs ({modes}),"
            f" {len(self.failures)} failing, {self.skipped} left out, {self.seconds:.1f} s"
        ]
        lines += [f"  {run}" for run in self.failures[:FAILURES_SHOWN]]
        return "\n".join(lines)


def cancel_everywhere(
    scenario: Callable[..., Awaitable[Any]],
    *,
    world: Callable[[], AbstractAsyncContextManager[Any]] = no_world,
    check: Check | None = None,
    victim: Callable[[Any], Victim] | None = None,
    faults: Mapping[str, Callable[[Any], Awaitable[Any]]] | None = None,
    allowed: tuple[type[BaseException], ...] = (),
    plan: Plan | None = None,
    name: str | None = None,
    **more: Any,
) -> Report:
    """Runs `scenario` again and again, each time cancelled somewhere else, and reports.

    `scenario` gets what `world` opens, if there is a world; `check` looks at that world when the
    cancelled scenario is gone, and raises if it finds it broken; then the scenario must be able to
    run in it once more. `victim` names other tasks to cancel than the scenario's own; `faults` are
    async functions that run beside it; `allowed` is what a cancelled scenario may raise.
    """
    program = Program(scenario, world, victim, check, faults or {}, allowed, **more)
    title = name or str(getattr(scenario, "__name__", "scenario"))
    return enumerate_runs(title, lambda each: run_once(program, each), [*program.faults], plan)


def replay(
    scenario: Callable[..., Awaitable[Any]],
    handle: str,
    *,
    world: Callable[[], AbstractAsyncContextManager[Any]] = no_world,
    check: Check | None = None,
    victim: Callable[[Any], Victim] | None = None,
    faults: Mapping[str, Callable[[Any], Awaitable[Any]]] | None = None,
    allowed: tuple[type[BaseException], ...] = (),
    **more: Any,
) -> Run:
    """One run of `cancel_everywhere`, by the handle that its report printed."""
    program = Program(scenario, world, victim, check, faults or {}, allowed, **more)
    return run_once(program, Cancellation.parse(handle))


def enumerate_runs(
    name: str,
    run: Callable[[Cancellation], Run],
    faults: list[str],
    plan: Plan | None = None,
) -> Report:
    """The enumeration, for whoever has another way to run a program."""
    enumeration = _Enumeration(Report(name), run, plan or Plan(), perf_counter())
    enumeration.go_through(None)
    if enumeration.plan.faults:
        for fault in faults:
            enumeration.go_through(fault)
    enumeration.report.seconds = perf_counter() - enumeration.began
    return enumeration.report


@attrs.define(eq=False)
class _Enumeration:
    """What is to be run, in order: without cancellation, once at each place, twice at each."""

    report: Report
    run: Callable[[Cancellation], Run]
    plan: Plan
    began: float
    _count: int = 0

    def go_through(self, fault: str | None) -> None:
        whole = self.run(Cancellation(0, fault=fault))
        if whole.wrong or fault is None:
            self.report.add("whole", whole)
        if fault is None:
            self.report.places = whole.steps
        if whole.wrong:
            return  # it fails without any cancellation
        with_fault = "" if fault is None else " beside a fault"
        for chosen in self._places(whole, fault):
            if not self._is_mine():
                continue
            once = self._try(f"once{with_fault}", chosen)
            if once is not None and self.plan.twice and (fault is None or self.plan.faults_twice):
                self._go_through_clean_up(once, f"twice{with_fault}")

    def _places(self, whole: Run, fault: str | None) -> Iterator[Cancellation]:
        for step in range(1, whole.steps + 1, self.plan.stride):
            yield Cancellation(step, fault=fault)
        if self.plan.anybody:
            for step in range(1, whole.all_steps + 1, self.plan.stride):
                yield Cancellation(step, by_anybody=True, fault=fault)

    def _go_through_clean_up(self, once: Run, mode: str) -> None:
        for again in range(1, once.clean_up_steps + 1):
            self._try(mode, attrs.evolve(once.cancellation, again=again))
        for again in range(1, once.shields + 1):
            self._try(mode, attrs.evolve(once.cancellation, again=again, expires=True))

    def _is_mine(self) -> bool:
        part, parts = self.plan.shard
        self._count += 1
        return self._count % parts == part

    def _try(self, mode: str, chosen: Cancellation) -> Run | None:
        seconds = self.plan.seconds
        if seconds is not None and perf_counter() - self.began > seconds:
            self.report.skipped += 1
            return None
        run = self.run(chosen)
        self.report.add(mode, run)
        return run
