"""A campaign: everybody in the reference scenarios cancelled everywhere, the new places first.

For each victim it first takes the cancellations that reach places not reached yet, then all the
others for as long as it may, from a place that turns from run to run. What does not fit is counted,
never forgotten. Processes share nothing; one that dies is raised.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Final

import attrs

from pie_trio.testing.await_coverage import Coverage, Places
from pie_trio.testing.await_sites import Site
from pie_trio.testing.cancellation import Report
from pie_trio.testing.cancellation_probe import Cancellation, Run
from pie_trio.testing.everywhere import BACKGROUND, Everywhere, census_of
from pie_trio.testing.interrupts import Stop, leave_interrupts_to_the_parent, never
from pie_trio.testing.scenarios import load_scenario
from pie_trio.testing.victims import Stand

REFERENCE: Final = (
    "first-uses",
    "crowds",
    "host-calls",
    "outputs",
    "requests",
    "python",
    "branches",
    "pressure",
    "families",
    "constraints",
    "rewrites",
)
TRIES_MAX: Final = 6  # of one way to stand, if nobody is told there, because it is shielded
HUNT_STRIDE: Final = 5
HUNT_MAX: Final = 120
LOOK_SECONDS: Final = 0.1  # so often it is asked whether somebody interrupts
CLEAN_UP_STEPS_MAX: Final = 4  # of a cancellation that was chosen for its places

Result = tuple[Report, list[str]]  # of one process, and the commands that repeat what failed


@attrs.frozen
class Campaign:
    """How much is run: see `run_everywhere`."""

    scenarios: tuple[str, ...]
    seconds: float | None
    rotation: int
    faults: bool
    seed: int = 0
    stop_file: str = ""  # when it is there, nothing more is begun


def run_everywhere(
    scenarios: Sequence[str] = REFERENCE,
    *,
    seconds: float | None = None,
    rotation: int = 0,
    faults: bool = False,
    processes: int = 1,
    stop: Stop = never,
) -> Coverage:
    """Cancels everybody in the scenarios everywhere, the places not reached yet first.

    With `seconds` of real time, what does not fit is left out and counted; one run of each scenario
    always fits, since nobody knows otherwise what there is. `rotation` says where the rest of the
    enumeration begins, so that another run takes another part. `faults`: all of it again beside
    each single background fault. `stop` ends it where it is, and that is reported.
    """
    total = Coverage(Report("everywhere"), Places.of_package())  # before a source changes
    shares = [tuple(scenarios[part::processes]) for part in range(processes)]
    with tempfile.TemporaryDirectory(prefix="pie-campaign-") as folder:
        file = Path(folder, "stop")
        campaigns = [
            Campaign(share, seconds, rotation, faults, stop_file=str(file))
            for share in shares
            if share
        ]
        if len(campaigns) == 1:
            results = [_run_campaign(campaigns[0], stop)]
        else:
            results = _run_beside(campaigns, file, stop)
    for report, commands in results:
        total.report.merge(report)
        total.commands += commands
    return total


def _run_beside(campaigns: list[Campaign], file: Path, stop: Stop) -> list[Result]:
    fresh = multiprocessing.get_context("spawn")
    with fresh.Pool(len(campaigns), leave_interrupts_to_the_parent) as pool:
        answer = pool.map_async(_run_campaign, campaigns)
        while not answer.ready():
            answer.wait(LOOK_SECONDS)
            if stop():
                file.touch()
        return answer.get()


def _run_campaign(campaign: Campaign, stop: Stop = never) -> Result:
    file = Path(campaign.stop_file)
    wanted = {place.site for place in Places.of_package().required}
    runner = _Runner(campaign, wanted, lambda: stop() or file.exists())
    for name in campaign.scenarios:
        if not runner.is_stopped():
            runner.survey(name)
    runner.cover()
    runner.go_through_the_rest()
    runner.report.seconds = perf_counter() - runner.began
    return runner.report, runner.commands


@attrs.define(eq=False)
class _Runner:
    """One process's part of a campaign."""

    campaign: Campaign
    wanted: set[Site]
    is_stopped: Stop
    report: Report = attrs.field(factory=lambda: Report("everywhere"))
    commands: list[str] = attrs.field(factory=list)
    began: float = attrs.field(factory=perf_counter)
    _surveys: list[tuple[Everywhere, list[Stand]]] = attrs.field(factory=list)
    _done: set[tuple[int, Cancellation]] = attrs.field(factory=set)
    _tries: Counter[tuple[str, frozenset[Site]]] = attrs.field(factory=Counter)
    _tries_again: Counter[frozenset[Site]] = attrs.field(factory=Counter)  # in clean-ups

    def survey(self, name: str) -> None:
        """Each victim's life when nobody is cancelled."""
        scenario, seed = load_scenario(name), self.campaign.seed
        census = census_of(scenario, seed)
        whole = Run(Cancellation(0), wrong=census.wrong)
        for victims in census.victims():
            everywhere = Everywhere(scenario, victims, seed)
            stands = census.stands.get(victims, [])
            self.report.places += len(stands)
            self._surveys.append((everywhere, stands))
        self._note("whole", self._surveys[-1][0], whole)

    def cover(self) -> None:
        """Whatever stands where nobody was told yet; then its clean-up, step by step.

        Who is not told where it stands, since it is about to go on, is told where it waits next.
        """
        for number, (everywhere, stands) in enumerate(self._surveys):
            kind = everywhere.victims.kind
            for stand in stands:
                if self._is_over():
                    return
                if not self._is_fresh(kind, stand.sites):
                    continue
                self._tries[kind, stand.sites] += 1
                if stand.is_told:
                    self._cover(number, Cancellation(stand.step))
                elif stand.moment > 1:
                    self._cover(number, Cancellation(stand.moment - 1, by_anybody=True))

        self._hunt()

    def _hunt(self) -> None:
        """For places that only clean-ups reach: here and there, a server says goodbye."""
        missing = self.wanted - self.report.once - self.report.twice
        partings = [
            (number, stand)
            for number, (everywhere, stands) in enumerate(self._surveys)
            if everywhere.victims.kind == "goodbye"
            for stand in stands[::HUNT_STRIDE]
        ]
        for number, stand in partings[:HUNT_MAX]:
            if missing <= self.report.once | self.report.twice or self._is_over():
                return
            self._cover(number, Cancellation(stand.step))

    def _is_fresh(self, kind: str, sites: frozenset[Site]) -> bool:
        missing = (sites & self.wanted) - self.report.once - self.report.twice
        return bool(missing) and self._tries[kind, sites] < TRIES_MAX

    def _cover(self, number: int, chosen: Cancellation) -> None:
        """Its clean-up is gone through only where that shows something new."""
        before = len(self.report.once)
        once = self._try("once", number, chosen)
        if len(self.report.once) > before:
            for again in range(1, min(once.clean_up_steps, CLEAN_UP_STEPS_MAX) + 1):
                self._try("twice", number, attrs.evolve(chosen, again=again))
        self._tell_again(number, once)

    def go_through_the_rest(self) -> None:
        rest = list(self._rest())
        start = self.campaign.rotation % len(rest) if rest else 0
        for number, chosen in [*rest[start:], *rest[:start]]:
            if self._is_over():
                self.report.skipped += 1
                continue
            once = self._try("once", number, chosen)
            if chosen.fault is None:
                self._go_through_clean_up(number, once)
            self._tell_again(number, once)

    def _rest(self) -> Iterator[tuple[int, Cancellation]]:
        """Neighbours of one victim lie far apart, so that any part is a bit of everything."""
        beside = [point for point, _at in BACKGROUND] if self.campaign.faults else []
        most = max((len(stands) for _, stands in self._surveys), default=0)
        for fault in (None, *beside):
            for step in range(1, most + 1):
                for number, (_, stands) in enumerate(self._surveys):
                    if step <= len(stands) and (number, Cancellation(step)) not in self._done:
                        yield number, Cancellation(step, fault=fault)

    def _go_through_clean_up(self, number: int, once: Run) -> None:
        for expires, count in ((False, once.clean_up_steps), (True, once.shields)):
            for again in range(1, count + 1):
                if self._is_over():
                    self.report.skipped += 1
                    continue
                chosen = attrs.evolve(once.cancellation, again=again, expires=expires)
                self._try("twice", number, chosen)

    def _tell_again(self, number: int, once: Run) -> None:
        """Where a clean-up stood and nobody was told again yet, also when the time is over: what
        one run has shown must not be missing because the next one was not begun."""
        for again, sites in enumerate(once.shielded, start=1):
            missing = (sites & self.wanted) - self.report.twice
            if missing and self._tries_again[sites] < TRIES_MAX and not self.is_stopped():
                self._tries_again[sites] += 1
                chosen = attrs.evolve(once.cancellation, again=again, expires=True)
                self._try("twice", number, chosen)

    def _try(self, mode: str, number: int, chosen: Cancellation) -> Run:
        everywhere, _ = self._surveys[number]
        run = everywhere.run(chosen)
        self._done.add((number, chosen))
        self._note(mode if chosen.fault is None else f"{mode} beside a fault", everywhere, run)
        return run

    def _note(self, mode: str, everywhere: Everywhere, run: Run) -> None:
        self.report.add(mode, run)
        if run.wrong:
            self.commands.append(
                f"pie-trio sim cancel-everywhere --scenario {everywhere.scenario.name}"
                f" --victim '{everywhere.victims}' --handle '{run.cancellation}'"
            )

    def _is_over(self) -> bool:
        seconds = self.campaign.seconds
        too_late = seconds is not None and perf_counter() - self.began > seconds
        return too_late or self.is_stopped()
