"""The instrument that cancels: it counts a victim's suspensions and acts at the chosen ones.

Owns the count, and what was seen of one run. It is called by Trio when a task has just been
suspended, so that a cancellation is delivered exactly there. Trio silently removes an instrument
that raises; this one never does, it says in the run's outcome that it is broken. A program that
hangs where no cancellation reaches it is set free, so that a run always ends.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import attrs
import trio

from pie_trio.testing.await_sites import Site, frames_of, own_site, sites_of

STEPS_MAX: Final = 200_000  # a program that takes more has come to no end
IDLE_TURNS_MAX: Final = 1000  # of the event loop, in which nobody ran and no time passed
HANDLE: Final = re.compile(
    r"(?P<anybody>~)?(?P<step>\d+)(?:(?P<kind>[+!])(?P<again>\d+))?(?:@(?P<fault>.+))?"
)


@attrs.frozen
class Victim:
    """Who is cancelled: which tasks are its own, how it is cancelled, whether it is gone."""

    owns: Callable[[trio.lowlevel.Task], bool]
    cancel: Callable[[], object]
    is_gone: Callable[[], bool]


@attrs.frozen
class Cancellation:
    """At the victim's k-th suspension; perhaps again, so many steps later, in the clean-up.

    `~`: the k-th suspension of anybody while the victim lives. Again is `+`: the world around is
    cancelled, too; or `!`: the time of every shield that protects the clean-up runs out. As text,
    such as `17`, `~204`, `17+3` or `17!2@worker`, it names one run.
    """

    step: int  # 0: nobody is cancelled
    by_anybody: bool = False
    again: int = 0
    expires: bool = False
    fault: str | None = None

    @classmethod
    def parse(cls, text: str) -> Cancellation:
        found = HANDLE.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} names no cancellation; 17, 17+3 or 17!3@fault would")
        return cls(
            int(found["step"]),
            found["anybody"] is not None,
            int(found["again"] or 0),
            found["kind"] == "!",
            found["fault"],
        )

    def __str__(self) -> str:
        again = f"{'!' if self.expires else '+'}{self.again}" if self.again else ""
        fault = f"@{self.fault}" if self.fault else ""
        return f"{'~' if self.by_anybody else ''}{self.step}{again}{fault}"


@attrs.define(eq=False)
class Run:
    """What happened; a run holds when nothing is wrong with it."""

    cancellation: Cancellation
    wrong: list[str] = attrs.field(factory=list)
    site: Site | None = None  # where the victim's task stood that was about to be cancelled
    second_site: Site | None = None
    was_cancelled: bool = False
    steps: int = 0  # suspensions of the victim until it is cancelled or ends
    all_steps: int = 0  # of anybody, meanwhile
    clean_up_steps: int = 0  # of anybody, from the cancellation until the victim is gone
    once: set[Site] = attrs.field(factory=set)
    twice: set[Site] = attrs.field(factory=set)
    cleaning: set[Site] = attrs.field(factory=set)  # where a clean-up stood that may take its time
    # Where it stood at each step of the clean-up at which a shield with a time protected it.
    shielded: list[frozenset[Site]] = attrs.field(factory=list)

    @property
    def shields(self) -> int:
        """Steps of the clean-up at which the time of a shield can run out."""
        return len(self.shielded)

    def __str__(self) -> str:
        again = f", again at {self.second_site}" if self.second_site else ""
        return f"{self.cancellation} at {self.site}{again}: {'; '.join(self.wrong) or 'holds'}"


class Probe(trio.abc.Instrument):
    """Counts the victim's suspensions and cancels at the chosen ones."""

    def __init__(self, run: Run, cancel_everything: Callable[[], object]) -> None:
        self.victim: Victim | None = None
        self._run = run
        self._cancel_everything = cancel_everything
        self._steps = 0
        self._idle_turns = 0
        self._told: set[trio.lowlevel.Task] = set()  # of a cancellation, at least once

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._guarded(self._note_told, task)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._guarded(self._note_step, task)

    def before_io_wait(self, _timeout: float) -> None:
        """With a clock that jumps, the event loop turns without end when nobody can ever wake."""
        self._idle_turns += 1
        if self._idle_turns == IDLE_TURNS_MAX:
            self._run.wrong.append("it hangs where no cancellation reaches it")
            self._cancel_everything()
            _drop_shields()

    def _guarded(
        self, note: Callable[[Victim, trio.lowlevel.Task], None], task: trio.lowlevel.Task
    ) -> None:
        if self.victim is None:
            return
        try:
            note(self.victim, task)
        except BaseException as error:  # Trio would remove an instrument that raises
            self._run.wrong.append(f"the harness is broken: {error!r}")
            self.victim = None
            self._cancel_everything()

    def _note_told(self, victim: Victim, task: trio.lowlevel.Task) -> None:
        """A task is about to get what it waited for; perhaps that it is cancelled."""
        run = self._run
        if run.was_cancelled and _is_told(task) and victim.owns(task):
            again = task in self._told or run.second_site is not None
            (run.twice if again else run.once).update(sites_of(task))
            self._told.add(task)

    def _note_step(self, victim: Victim, task: trio.lowlevel.Task) -> None:
        run = self._run
        self._idle_turns = 0
        self._steps += 1
        if self._steps == STEPS_MAX:
            run.wrong.append(f"no end after {STEPS_MAX} steps")
            self._cancel_everything()
        if getattr(task.coro, "cr_frame", None) is None:
            return  # it has ended
        if run.was_cancelled:
            self._note_clean_up(victim, task)
        elif not victim.is_gone():
            is_own = victim.owns(task)
            run.steps += is_own
            run.all_steps += 1
            if self._is_the_moment(is_own):
                run.was_cancelled, run.site = True, own_site(task)
                victim.cancel()

    def _is_the_moment(self, is_own: bool) -> bool:
        chosen = self._run.cancellation
        if chosen.by_anybody:
            return self._run.all_steps == chosen.step
        return is_own and self._run.steps == chosen.step

    def _note_clean_up(self, victim: Victim, task: trio.lowlevel.Task) -> None:
        run, cancellation = self._run, self._run.cancellation
        if victim.is_gone():
            return
        run.clean_up_steps += 1
        protected = [(each, list(_timed_shields(each))) for each in tasks_of(victim)]
        shields = [scope for _, scopes in protected for scope in scopes]
        if shields:
            run.shielded.append(
                frozenset(site for each, scopes in protected if scopes for site in sites_of(each))
            )
            run.cleaning |= run.shielded[-1]
        count = run.shields if cancellation.expires else run.clean_up_steps
        if cancellation.again and count == cancellation.again and run.second_site is None:
            run.second_site = own_site(task)
            (_cancel_all(shields) if cancellation.expires else self._cancel_everything)()


def _cancel_all(scopes: list[trio.CancelScope]) -> Callable[[], None]:
    def cancel() -> None:
        for scope in scopes:
            scope.cancel()

    return cancel


def tasks_of(victim: Victim) -> list[trio.lowlevel.Task]:
    """All living tasks that the victim owns."""
    return [task for task in all_tasks() if victim.owns(task)]


def all_tasks() -> Iterator[trio.lowlevel.Task]:
    root = trio.lowlevel.current_root_task()
    assert root is not None, "an instrument is called while Trio runs"
    return walk(root)


def walk(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    yield task
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from walk(child)


def is_below(task: trio.lowlevel.Task, root: trio.lowlevel.Task) -> bool:
    """Whether a task is another's descendant, or the same."""
    current: trio.lowlevel.Task | None = task
    while current is not None and current is not root:
        current = current.parent_nursery.parent_task if current.parent_nursery else None
    return current is root


# --- what only Trio's inside tells; tests/test_cancellation.py is the contract


def _is_told(task: trio.lowlevel.Task) -> bool:
    """Whether what a task is about to get is a cancellation, and not one by a time of its own.

    A nursery that waits for its children keeps a cancellation to itself until they are gone.
    """
    if task._next_send is not None and hasattr(task._next_send, "error"):
        error = task._next_send.error
        return isinstance(error, trio.Cancelled) and error.source != "deadline"
    cancelled = task._cancel_status.effectively_cancelled
    return cancelled and "_nested_child_finished" in _innermost(task)


def can_be_told(task: trio.lowlevel.Task) -> bool:
    """Whether a cancellation that comes now reaches a task where it stands."""
    return task._abort_func is not None or "checkpoint" in _innermost(task)


def _timed_shields(task: trio.lowlevel.Task) -> Iterator[trio.CancelScope]:
    """The scopes around a task that keep a cancellation from it, but not for ever."""
    status: Any = task._cancel_status
    while status is not None:
        scope = status._scope
        if scope.shield and scope.deadline < math.inf and not scope.cancel_called:
            yield scope
        status = status.parent


def _drop_shields() -> None:
    for task in all_tasks():
        status: Any = task._cancel_status
        while status is not None:
            status._scope.shield = False
            status = status.parent


def _innermost(task: trio.lowlevel.Task) -> list[str]:
    return [frame.f_code.co_name for frame in frames_of(task)][-3:]
