"""A user's own program under every fault that can befall it: what it survives, by name.

It is run alone in a simulated world, first undisturbed, to see what it does; then once for each
case: its worker is lost at each batch, pages are short, batches are slow, passes fail, its client
goes, it is cancelled at each host call. It survives a case when it returns, or is ended by an error
that has a name and comes from outside of it, and leaves nothing behind; it does not when it traps,
fails by itself, hangs or leaks. Each case is a run from a name, so that it can be repeated.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from pathlib import Path

import attrs

from pie_trio.errors import BadProgram, GuestFault
from pie_trio.events import BatchDispatched, Event, HostCalled, InstanceFinished
from pie_trio.testing.faults import Fault
from pie_trio.testing.scenarios import Scenario
from pie_trio.testing.sim_worker import REFUSAL
from pie_trio.testing.simulation import Outcome, Simulation
from pie_trio.testing.timeline import PagesCounted
from pie_trio.testing.workshop import workshop
from pie_trio.testing.world import World

PAGES = 512
PAGE_TOKENS = 16
PLACES_MAX = 12  # batches, and moments of a connection, that are tried
CALLS_MAX = 200  # host calls at which it is cancelled, spread over all of them
CONNECTION_PLACES = 40  # chunks of a connection, from its start, among which it is cut
VALUE_CHARACTERS = 60  # that are shown of a guest's text
SHOWN_OF_A_KIND = 3  # cases that were not survived
SHORT_WAIT_SECONDS = 0.5  # how long a request for pages waits where they are short
# What a program says that ends with a refusal it was told: an error of the kit, or of the host.
REFUSALS = (REFUSAL, "OutOfPages: ", "WorkerLost: ", "PassFailed: ", "out of pages")


class Fate(Enum):
    """How a case went."""

    SAME = "returned as ever"
    OTHER = "returned something else"
    ENDED = "was ended by name"
    FAILED = "failed by itself"
    BROKEN = "broke a rule"
    MISSED = "was over before the fault came"


@attrs.frozen
class Case:
    """One fault at one place."""

    kind: str
    place: str
    faults: tuple[Fault, ...]

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.place}"


@attrs.frozen
class Verdict:
    """What became of the program in one case."""

    case: Case
    fate: Fate
    told: str  # the value that it returned, or why it ended
    error: str = ""  # the name of the error that ended it

    @property
    def survived(self) -> bool:
        return self.fate not in (Fate.FAILED, Fate.BROKEN)

    def __str__(self) -> str:
        facts = [text for text in (self.error, shortened(self.told)) if text]
        return f"it {self.fate.value}" + (f": {', '.join(facts)}" if facts else "")


@attrs.frozen
class Baseline:
    """What the program does when nothing happens."""

    value: str
    calls: tuple[HostCalled, ...]
    batches: int
    pages: int


@attrs.frozen
class TrialReport:
    """All cases of one program."""

    program: str
    baseline: Baseline
    verdicts: tuple[Verdict, ...]

    @property
    def holds(self) -> bool:
        return all(verdict.survived for verdict in self.verdicts)

    def by_kind(self) -> Iterator[tuple[str, list[Verdict]]]:
        for kind in dict.fromkeys(verdict.case.kind for verdict in self.verdicts):
            yield kind, [verdict for verdict in self.verdicts if verdict.case.kind == kind]

    def text(self, command: str = "case {case}") -> str:
        """A line a kind, and what was not survived; `command` is told with the case's name."""
        base = self.baseline
        lines = [
            f"{self.program}: {len(base.calls)} host calls, {base.batches} batches, at most "
            f"{base.pages} pages; returns {shortened(base.value)}"
        ]
        for kind, verdicts in self.by_kind():
            how = ", ".join(f"{count} {fate}" for fate, count in fates(verdicts).items())
            lines.append(f"  {_mark(verdicts):<13} {kind:<27} {how}")
            failed = [verdict for verdict in verdicts if not verdict.survived]
            for verdict in failed[:SHOWN_OF_A_KIND]:
                replay = command.format(case=shlex.quote(verdict.case.name))
                lines.append(f"    {verdict.case.place}: {verdict}")
                lines.append(f"    replay: {replay}")
            if len(failed) > SHOWN_OF_A_KIND:
                lines.append(f"    and {len(failed) - SHOWN_OF_A_KIND} more")
        return "\n".join(lines)

    def raw(self) -> dict[str, object]:
        """What the bars are computed from."""
        return {
            "program": self.program,
            "host_calls": len(self.baseline.calls),
            "batches": self.baseline.batches,
            "pages": self.baseline.pages,
            "cases": [
                {
                    "name": verdict.case.name,
                    "kind": verdict.case.kind,
                    "fate": verdict.fate.value,
                    "error": verdict.error,
                    "told": verdict.told,
                    "survived": verdict.survived,
                }
                for verdict in self.verdicts
            ],
        }


@attrs.define(eq=False)
class Trial:
    """One program and its arguments; `open_trial` makes it."""

    program: str
    arguments: tuple[str, ...]
    _baseline: Baseline | None = attrs.field(default=None, init=False)

    @property
    def baseline(self) -> Baseline:
        """Raises `BadProgram` if the program fails without any fault."""
        if self._baseline is None:
            self._baseline = _baseline_of(self.play(()), self.program)
        return self._baseline

    def cases(self) -> list[Case]:
        return list(_cases(self.baseline))

    def play(self, faults: Sequence[Fault]) -> Outcome:
        """One run; the same faults, the same run."""
        usual = (
            Fault(0, "limits.pages", 0, PAGES),
            Fault(1, "limits.page_tokens", 0, PAGE_TOKENS),
        )
        drawn = {fault.point for fault in faults}
        together = [*(fault for fault in usual if fault.point not in drawn), *faults]

        async def alone(world: World) -> None:
            await world.run(self.program, *self.arguments)

        scenario = Scenario(self.program, alone, (self.program,), is_compared=False)
        return Simulation(0, together, scenario, "fifo", records=True).run()

    def judge(self, case: Case) -> Verdict:
        return _verdict(case, self.play(case.faults), self.baseline)

    def run(self, on_done: Callable[[int, int], None] = lambda _done, _all: None) -> TrialReport:
        """All cases; `on_done` is told how many of how many are done."""
        cases, verdicts = self.cases(), []
        for number, case in enumerate(cases, start=1):
            verdicts.append(self.judge(case))
            on_done(number, len(cases))
        return TrialReport(self.program, self.baseline, tuple(verdicts))


def open_trial(path: Path, arguments: Sequence[str]) -> Trial:
    """Takes a `.py`, a `.wasm` or a folder with a manifest. Raises `BadProgram`."""
    return Trial(workshop().install(path), tuple(arguments))


def _baseline_of(outcome: Outcome, program: str) -> Baseline:
    end = _ending(outcome.timeline)
    value = outcome.launches[0].value if outcome.launches else None
    if outcome.violations or end is None or value is None:
        how = "; ".join(outcome.violations) or (end.reason if end else "it never started")
        raise BadProgram(f"{program} does not run without any fault: {how}")
    calls = tuple(event for event in outcome.timeline if isinstance(event, HostCalled))
    batches = sum(isinstance(event, BatchDispatched) for event in outcome.timeline)
    counted = (event.used for event in outcome.timeline if isinstance(event, PagesCounted))
    return Baseline(value, calls, batches, max(counted, default=0))


def _cases(baseline: Baseline) -> Iterator[Case]:
    for batch in _spread(baseline.batches, PLACES_MAX):
        for point in ("worker.crash-before", "worker.crash-after"):
            when = point.rpartition("-")[2]
            yield Case("worker lost", f"{when} batch {batch + 1}", (Fault(9, point, batch),))
    for pages in sorted({1, baseline.pages // 2, baseline.pages - 1}):
        if 0 < pages < baseline.pages:
            yield Case("out of pages", f"{pages} of {baseline.pages} pages", _short_of(pages))
    for batch in _spread(baseline.batches, PLACES_MAX):
        yield Case("slow batches", f"batch {batch + 1}", (Fault(9, "worker.slow", batch, 0.5),))
    for batch in _spread(baseline.batches, PLACES_MAX):
        fault = Fault(9, "worker.pass-fails", batch, 0.0)
        yield Case("pass refused by the worker", f"batch {batch + 1}", (fault,))
    for place in _spread(CONNECTION_PLACES, PLACES_MAX):
        yield Case("client gone", f"chunk {place + 1}", (Fault(9, "net.disconnect", place),))
    for call in _spread(len(baseline.calls), CALLS_MAX):
        name = baseline.calls[call].function.partition("#")[2]
        fault = Fault(9, "kill.call", call)
        yield Case("cancelled", f"call {call + 1}, {name}", (fault,))


def _short_of(pages: int) -> tuple[Fault, ...]:
    wait = Fault(8, "limits.page_wait_seconds", 0, SHORT_WAIT_SECONDS)
    return (wait, Fault(9, "limits.pages", 0, pages))


def _spread(count: int, most: int) -> list[int]:
    """At most so many places out of `count`, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(number * (count - 1) / (most - 1)) for number in range(most)})


def _verdict(case: Case, outcome: Outcome, baseline: Baseline) -> Verdict:
    if outcome.violations:
        return Verdict(case, Fate.BROKEN, "; ".join(outcome.violations))
    end = _ending(outcome.timeline)
    limits_only = all(fault.kind == "limits" for fault in case.faults)
    if end is None:
        return Verdict(case, Fate.ENDED, "it was never started", "no launch")
    if end.outcome != "return":
        told_why = any(name in end.reason for name in REFUSALS)
        by_itself = end.outcome == GuestFault.__name__ and not told_why
        fate = Fate.FAILED if by_itself else Fate.ENDED
        return Verdict(case, fate, end.reason, end.outcome)
    if not limits_only and not outcome.fired:
        return Verdict(case, Fate.MISSED, "")
    values = [launch.value for launch in outcome.launches if launch.value is not None]
    value = values[0] if values else baseline.value  # its client had gone before
    return Verdict(case, Fate.SAME if value == baseline.value else Fate.OTHER, value)


def _ending(events: Sequence[Event]) -> InstanceFinished | None:
    """The first instance's; a client that comes back may launch another."""
    return next((event for event in events if isinstance(event, InstanceFinished)), None)


def shortened(text: str) -> str:
    """The beginning of a guest's text, in one line."""
    line = " ".join(text.split())
    return line if len(line) <= VALUE_CHARACTERS else line[: VALUE_CHARACTERS - 3] + "..."


def _mark(verdicts: Sequence[Verdict]) -> str:
    if not all(verdict.survived for verdict in verdicts):
        return "NOT SURVIVED"
    return "ended by name" if any(verdict.error for verdict in verdicts) else "survived"


def fates(verdicts: Sequence[Verdict]) -> Counter[str]:
    """How many went how, in words."""
    return Counter(
        f"ended with {verdict.error}" if verdict.error else verdict.fate.value
        for verdict in verdicts
    )
