"""Many seeds, over a few processes: what failed, what was reached, how fast.

Each seed is a run of its own; the order in which they are run shows in nothing. A process that dies
is an error of ours and is raised. A swarm also fails when an interesting state was never reached:
then its faults and its rules have looked at nothing.
"""

from __future__ import annotations

import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import attrs

from pie_trio.testing.faults import Faults
from pie_trio.testing.interrupts import Stop, leave_interrupts_to_the_parent, never
from pie_trio.testing.scheduler import Mode, garbage_between_runs
from pie_trio.testing.simulation import Outcome, Simulation

REAL_SHARE = 0.3  # of the seeds of the swarm: real components instead of scripts
GROUND_SHARE = 0.15  # of them: what the mix has nothing of
GROUNDS = ("fused", "constraints", "families")
CHUNK_SEEDS = 10
LOOK_SECONDS = 0.1  # so often it is asked whether it is over
# States that some seed of many must reach.
INTERESTING = (
    "kill while a batch is in flight",
    "kill between batches",
    "a page only a batch holds",
    "a batch of several instances",
    "a later generation executes",
    "a client lost its connection",
    "a client attached to an instance",
    "an instance ends with WorkerLost",
    "an instance ends with OutOfPages",
    "an instance ends with GuestFault",
    "an instance ends with Terminated",
    "the engine is stopped in the middle",
)
INTERESTING_SEEDS = 300  # with fewer seeds nothing is demanded


@attrs.frozen
class SwarmTask:
    """What one process does at a time."""

    seeds: tuple[int, ...]
    scenario: str | None
    faults: Faults
    scheduler: Mode | None


@attrs.frozen
class SwarmReport:
    """All outcomes of failing seeds, and sums of the others."""

    seeds: int
    real_seeds: int
    steps: int
    fired: int
    seconds: float
    failures: tuple[Outcome, ...]
    reached: Counter[str]
    fired_points: Counter[str]
    digests: dict[int, int]
    profiles: dict[str, tuple[int, float]]  # of each scenario: seeds, and CPU seconds of them

    @property
    def missing(self) -> tuple[str, ...]:
        """Interesting states that were never reached, when there were seeds enough."""
        if self.seeds < INTERESTING_SEEDS:
            return ()
        return tuple(state for state in INTERESTING if not self.reached[state])

    @property
    def holds(self) -> bool:
        return bool(self.seeds) and not self.failures and not self.missing


def scenario_of(seed: int) -> str:
    """What a seed of the swarm plays when nobody says: the mix, real components, or a ground."""
    dice = random.Random(f"{seed}/scenario name")
    drawn = dice.random()
    if drawn < REAL_SHARE:
        return "real"
    return dice.choice(GROUNDS) if drawn < REAL_SHARE + GROUND_SHARE else "mixed"


def run_seeds(
    seeds: Iterable[int],
    *,
    scenario: str | None = None,
    faults: Faults | None = None,
    scheduler: Mode | None = None,
    processes: int = 2,
    seconds_max: float | None = None,
    on_done: Callable[[int], None] = lambda _seeds: None,
    stop: Stop = never,
) -> SwarmReport:
    """Runs them all, or as many as `seconds_max` of real time and `stop` allow."""
    began = time.perf_counter()

    def is_over() -> bool:
        too_late = seconds_max is not None and time.perf_counter() - began > seconds_max
        return too_late or stop()

    tasks = [
        SwarmTask(chunk, scenario, faults or Faults(), scheduler)
        for chunk in _chunks(tuple(seeds), CHUNK_SEEDS)
    ]
    reports = []
    done = 0
    for report in _reports(tasks, processes, is_over):
        reports.append(report)
        done += report.seeds
        on_done(done)
    return _joined(reports, time.perf_counter() - began)


def run_chunk(task: SwarmTask) -> SwarmReport:
    """Some seeds, in this process."""
    with garbage_between_runs():
        return _run_chunk(task)


def _run_chunk(task: SwarmTask) -> SwarmReport:
    began = time.perf_counter()
    failures: list[Outcome] = []
    reached: Counter[str] = Counter()
    points: Counter[str] = Counter()
    digests: dict[int, int] = {}
    profiles: dict[str, tuple[int, float]] = {}
    steps = real = 0
    for seed in task.seeds:
        name = task.scenario or scenario_of(seed)
        cpu = time.process_time()
        outcome = Simulation(seed, task.faults, name, task.scheduler).run()
        count, seconds = profiles.get(name, (0, 0.0))
        profiles[name] = (count + 1, seconds + time.process_time() - cpu)
        steps += outcome.steps
        real += name == "real"
        reached.update(outcome.reached.keys())
        points.update(fault.point for fault in outcome.fired)
        digests[seed] = outcome.digest
        if outcome.violations:
            failures.append(outcome)
    return SwarmReport(
        seeds=len(task.seeds),
        real_seeds=real,
        steps=steps,
        fired=points.total(),
        seconds=time.perf_counter() - began,
        failures=tuple(failures),
        reached=reached,
        fired_points=points,
        digests=digests,
        profiles=profiles,
    )


def _reports(tasks: Sequence[SwarmTask], processes: int, is_over: Stop) -> Iterator[SwarmReport]:
    if processes <= 1 or len(tasks) <= 1:
        for task in tasks:
            if is_over():
                return
            yield run_chunk(task)
        return
    # Forked children would share what this process has opened; fresh ones share nothing.
    fresh = multiprocessing.get_context("spawn")
    with fresh.Pool(processes, leave_interrupts_to_the_parent) as pool:
        answers = pool.imap_unordered(run_chunk, tasks)
        while not is_over():
            try:
                yield answers.next(LOOK_SECONDS)
            except multiprocessing.TimeoutError:
                continue
            except StopIteration:
                return


def _chunks(seeds: tuple[int, ...], size: int) -> Iterator[tuple[int, ...]]:
    for start in range(0, len(seeds), size):
        yield seeds[start : start + size]


def _joined(reports: Sequence[SwarmReport], seconds: float) -> SwarmReport:
    failures = sorted((f for r in reports for f in r.failures), key=lambda outcome: outcome.seed)
    return SwarmReport(
        seeds=sum(report.seeds for report in reports),
        real_seeds=sum(report.real_seeds for report in reports),
        steps=sum(report.steps for report in reports),
        fired=sum(report.fired for report in reports),
        seconds=seconds,
        failures=tuple(failures),
        reached=sum((report.reached for report in reports), Counter()),
        fired_points=sum((report.fired_points for report in reports), Counter()),
        digests={seed: digest for r in reports for seed, digest in r.digests.items()},
        profiles=_sums([report.profiles for report in reports]),
    )


def _sums(parts: Sequence[dict[str, tuple[int, float]]]) -> dict[str, tuple[int, float]]:
    names = sorted({name for part in parts for name in part})
    none = (0, 0.0)
    return {
        name: (
            sum(part.get(name, none)[0] for part in parts),
            sum(part.get(name, none)[1] for part in parts),
        )
        for name in names
    }
