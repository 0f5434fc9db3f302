"""Was every `await` on an instance's path cancelled at? The list of them, and the campaign.

The places come from the parser (`await_graph`), what happened there from the runs (`everywhere`).
A campaign first takes, for each victim of each reference scenario, the cancellations that reach
places not reached yet, then all the others for as long as it may. What is left out of the list is
left out by name, with the reason; an entry that matches nothing any more is an error.
"""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from time import perf_counter
from types import MappingProxyType
from typing import Final

import attrs

from pie_trio.testing.await_graph import AwaitGraph, PathSite
from pie_trio.testing.await_sites import Site
from pie_trio.testing.cancellation import Report
from pie_trio.testing.cancellation_probe import Cancellation, Run
from pie_trio.testing.everywhere import BACKGROUND, Everywhere, census_of
from pie_trio.testing.scenarios import load_scenario

REFERENCE: Final = (
    "first-uses",
    "crowds",
    "host-calls",
    "outputs",
    "requests",
    "python",
    "branches",
    "pressure",
)
TRIES_MAX: Final = 6  # for a place at which nobody is ever told, because it is shielded
CLEAN_UP_STEPS_MAX: Final = 12  # of a cancellation that was chosen for its places
REAL_TIME: Final = "only where slices are cut by the real clock; tests/test_wasm_turns.py"
PROCESS: Final = "waits for a process of its own, in real time; tests/test_wasm_compile.py"
# Part of a function's name and of its text -> why nobody is cancelled there.
EXCLUDED: Final[Mapping[tuple[str, str], str]] = MappingProxyType(
    {
        ("replaying.py:", ""): "offline: there is no engine and no instance",
        ("interpreter.py:ensure_interpreter", ""): PROCESS,
        ("program_loader.py:ProgramLoader._load_python", "ensure_interpreter"): PROCESS,
        ("wasm/compile.py:Compiler._run_child", ""): PROCESS,
        ("wasm/compile.py:Compiler.compile", "_run_child"): PROCESS,
        ("services/worker_process.py:", ""): "the real worker; tests/test_worker_process.py",
        ("services/zmq_socket.py:TrioSocket._retry", "cancel_shielded"): "shielded: it was sent",
        ("queue_access.py:InstanceQueue.submit", "_command_queue"): "a line above it waited",
        ("queue_access.py:InstanceQueue.export", "self._residence"): "a line above it waited",
        ("wasm/fiber.py:Fiber._attend", "_come_back"): REAL_TIME,
        ("wasm/fiber.py:Fiber._come_back", ""): REAL_TIME,
        ("wasm/fiber.py:Fiber._next_turn", "wait_all_tasks_blocked"): REAL_TIME,
        ("wasm/guest.py:Guest._instantiate", ""): "start code that spins; tests/test_wasm_guest.py",
        ("wasm/guest.py:open_guest", ""): "start code that spins; tests/test_wasm_guest.py",
        ("engine.py:Engine._live", "open_guest"): "start code that spins; tests/test_wasm_guest.py",
        ("wasm/wasi/poll.py:Ready.wait", ""): "it is always ready, so nobody waits for it",
    }
)


@attrs.frozen
class Places:
    """The places that must be cancelled at, and those that are left out."""

    required: tuple[PathSite, ...]
    excluded: tuple[tuple[PathSite, str], ...]

    @classmethod
    def of_package(cls) -> Places:
        required, excluded, used = [], [], set[tuple[str, str]]()
        for place in AwaitGraph().sites_on_path():
            keys = [key for key in EXCLUDED if key[0] in place.function and key[1] in place.text]
            used.update(keys)
            if keys:
                excluded.append((place, EXCLUDED[keys[0]]))
            else:
                required.append(place)
        unused = [key for key in EXCLUDED if key not in used]
        assert not unused, f"these exclusions match no place any more: {unused}"
        return cls(tuple(required), tuple(excluded))


@attrs.define
class Coverage:
    """What a campaign shows."""

    report: Report
    places: Places
    commands: list[str] = attrs.field(factory=list)  # that repeat the failing runs

    @property
    def missing_once(self) -> list[PathSite]:
        told = self.report.once | self.report.twice
        return [place for place in self.places.required if place.site not in told]

    @property
    def missing_twice(self) -> list[PathSite]:
        """Places where a clean-up can stand, by the source or because a run showed one there."""
        return [
            place
            for place in self.places.required
            if (place.in_clean_up or place.site in self.report.cleaning)
            and place.site not in self.report.twice
        ]

    @property
    def holds(self) -> bool:
        return not (self.report.failures or self.missing_once or self.missing_twice)

    def text(self) -> str:
        required = len(self.places.required)
        cleaning = [p for p in self.places.required if p.in_clean_up or p.site in self._cleaning]
        lines = [
            self.report.text(),
            f"cancelled at {required - len(self.missing_once)} of {required} places on the path of"
            f" an instance or a connection, {len(self.places.excluded)} left out by name",
            f"cancelled again in the clean-up at {len(cleaning) - len(self.missing_twice)}"
            f" of {len(cleaning)} places",
        ]
        lines += [f"  never at {p.site} in {p.function}: {p.text}" for p in self.missing_once]
        lines += [f"  not again at {p.site} in {p.function}: {p.text}" for p in self.missing_twice]
        lines += [f"  replay: {command}" for command in self.commands]
        return "\n".join(lines)

    @property
    def _cleaning(self) -> set[Site]:
        return self.report.cleaning

    def raw(self) -> dict[str, object]:
        """For a file: what the bars are computed from."""
        told = self.report.once | self.report.twice
        return {
            "command": "sim cancel-everywhere",
            "runs": self.report.runs,
            "left_out": self.report.skipped,
            "seconds": self.report.seconds,
            "failures": [str(run) for run in self.report.failures],
            "replays": self.commands,
            "sites": [
                {
                    "site": str(place.site),
                    "function": place.function,
                    "once": place.site in told,
                    "in_clean_up": place.in_clean_up or place.site in self._cleaning,
                    "twice": place.site in self.report.twice,
                }
                for place in self.places.required
            ],
            "excluded": [
                {"site": str(place.site), "function": place.function, "why": why}
                for place, why in self.places.excluded
            ],
        }


@attrs.frozen
class Campaign:
    """How much is run: see `run_everywhere`."""

    scenarios: tuple[str, ...]
    seconds: float | None
    rotation: int
    faults: bool
    seed: int = 0


def run_everywhere(
    scenarios: Sequence[str] = REFERENCE,
    *,
    seconds: float | None = None,
    rotation: int = 0,
    faults: bool = False,
    processes: int = 1,
) -> Coverage:
    """Cancels everybody in the scenarios everywhere, the places not reached yet first.

    With `seconds` of real time, what does not fit is left out and counted; `rotation` says where
    the rest of the enumeration begins, so that another run takes another part. `faults`: all of it
    again beside each single background fault.
    """
    total = Coverage(Report("everywhere"), Places.of_package())  # before a source changes
    shares = [tuple(scenarios[part::processes]) for part in range(processes)]
    campaigns = [Campaign(share, seconds, rotation, faults) for share in shares if share]
    if len(campaigns) == 1:
        results = [_run_campaign(campaigns[0])]
    else:
        with multiprocessing.get_context("spawn").Pool(len(campaigns)) as pool:
            results = pool.map(_run_campaign, campaigns)
    for report, commands in results:
        total.report.merge(report)
        total.commands += commands
    return total


def _run_campaign(campaign: Campaign) -> tuple[Report, list[str]]:
    runner = _Runner(campaign, {place.site for place in Places.of_package().required})
    for name in campaign.scenarios:
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
    report: Report = attrs.field(factory=lambda: Report("everywhere"))
    commands: list[str] = attrs.field(factory=list)
    began: float = attrs.field(factory=perf_counter)
    _surveys: list[tuple[Everywhere, Run]] = attrs.field(factory=list)
    _done: set[tuple[int, Cancellation]] = attrs.field(factory=set)
    _tries: Counter[Site] = attrs.field(factory=Counter)

    def survey(self, name: str) -> None:
        """Each victim's life when nobody is cancelled."""
        scenario, seed = load_scenario(name), self.campaign.seed
        for victims in census_of(scenario, seed).victims():
            everywhere = Everywhere(scenario, victims, seed)
            run = everywhere.run(Cancellation(0))
            self._note("whole", everywhere, run)
            self.report.places += run.steps
            self._surveys.append((everywhere, run))

    def cover(self) -> None:
        """Whatever stands where nobody was told yet; then its clean-up, step by step.

        Who is not told where it stands, since it is about to go on, is told where it waits next.
        """
        for number, (_, whole) in enumerate(self._surveys):
            for step, (moment, stand) in enumerate(whole.stands, start=1):
                if self._is_fresh(stand):
                    self._cover(number, Cancellation(step))
                if moment > 1 and self._is_fresh(stand):
                    self._cover(number, Cancellation(moment - 1, by_anybody=True))
                self._tries.update(stand)

    def _is_fresh(self, stand: frozenset[Site]) -> bool:
        missing = (stand & self.wanted) - self.report.once - self.report.twice
        return any(self._tries[site] < TRIES_MAX for site in missing)

    def _cover(self, number: int, chosen: Cancellation) -> None:
        once = self._try("once", number, chosen)
        for again in range(1, min(once.clean_up_steps, CLEAN_UP_STEPS_MAX) + 1):
            self._try("twice", number, attrs.evolve(chosen, again=again))
        for again, stand in enumerate(once.shielded, start=1):
            if stand - self.report.twice:
                self._try("twice", number, attrs.evolve(chosen, again=again, expires=True))

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

    def _rest(self) -> Iterator[tuple[int, Cancellation]]:
        """Neighbours of one victim lie far apart, so that any part is a bit of everything."""
        beside = [point for point, _at in BACKGROUND] if self.campaign.faults else []
        most = max((run.steps for _, run in self._surveys), default=0)
        for fault in (None, *beside):
            for step in range(1, most + 1):
                for number, (_, run) in enumerate(self._surveys):
                    if step <= run.steps and (number, Cancellation(step)) not in self._done:
                        yield number, Cancellation(step, fault=fault)

    def _go_through_clean_up(self, number: int, once: Run) -> None:
        for expires, count in ((False, once.clean_up_steps), (True, once.shields)):
            for again in range(1, count + 1):
                if self._is_over():
                    self.report.skipped += 1
                    continue
                chosen = attrs.evolve(once.cancellation, again=again, expires=expires)
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
        return seconds is not None and perf_counter() - self.began > seconds
