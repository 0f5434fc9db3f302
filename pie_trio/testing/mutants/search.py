"""Looks for what a mutant breaks, in the mutant's own process: plainly, by seeds, by cancellations.

Each run is announced before it begins, so that whoever reads knows which one stood still; an alarm
of the system ends this process then, even in the middle of compiled code. It stops at the first
violation that a plain scenario did not show.
"""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from time import perf_counter
from types import MappingProxyType
from typing import Any, Final, TextIO

import attrs

from pie_trio.testing.cancellation_probe import Cancellation
from pie_trio.testing.everywhere import Everywhere, census_of
from pie_trio.testing.faults import KINDS, KNOBS, POINTS, Fault, Faults
from pie_trio.testing.scenarios import load_scenario
from pie_trio.testing.scheduler import MODES
from pie_trio.testing.simulation import Simulation

STANDSTILL_SECONDS: Final = 30  # of real time, for one run
PLAIN_SEED: Final = 0
CANCELLED_SEEDS: Final = (0, 1, 2)
# Those in which clients and guests behave: nobody is ended from outside, nobody breaks a rule.
PLAIN: Final = (
    *("decode", "branches", "sharing", "talking", "keys"),
    *("attach", "pressure", "two-models", "real"),
)
# What can go wrong in the area of a ground; the swarm draws its subsets from these.
KINDS_OF: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "page-traffic": ("kill", "limits", "worker", "memory", "stop", "net", "jitter"),
        "last-pages": ("kill", "limits", "jitter"),
        "pass-traffic": ("kill", "limits", "worker", "jitter"),
        "batch-mates": ("kill", "limits", "jitter"),
        "choirs": ("kill", "limits", "worker", "jitter"),
        "refrains": ("kill", "jitter"),
        "lives": ("kill", "worker", "stop", "net", "jitter"),
        "links": ("link", "worker", "jitter"),
        "airlock": ("kill", "limits", "worker", "net", "jitter"),
        "front-door": ("net", "limits", "kill", "jitter"),
        "partings": ("limits", "kill", "jitter"),
        "families": ("kill", "worker", "net", "stop", "jitter"),
    }
)
# What is drawn beside that, each for some of the seeds: where the area is weakest.
FOCUS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "page-traffic": (
            *("kill.step", "kill.step", "kill.call", "kill.dispatch", "limits.pages"),
            *("limits.page_wait_seconds", "jitter.all"),
        ),
        "last-pages": (
            *("kill.step", "kill.call", "kill.call", "jitter.all"),
            *("limits.pages", "limits.page_wait_seconds"),
        ),
        "batch-mates": (
            *("kill.dispatch", "kill.dispatch", "limits.batch_passes", "limits.batch_passes"),
        ),
        "pass-traffic": (
            *("worker.pass-fails", "worker.pass-fails", "kill.dispatch", "kill.settle"),
            *("kill.step", "limits.batch_tokens", "limits.batch_passes"),
        ),
        "lives": ("worker.crash-before", "worker.crash-after", "kill.step"),
        "links": (
            *("link.duplicate", "link.duplicate", "link.stale", "link.wrong", "link.wrong"),
            *("link.echo", "link.echo", "link.echo", "link.garbage", "link.garbage"),
            *("worker.crash-after", "worker.slow", "worker.hang"),
        ),
        "airlock": ("kill.step", "kill.call", "kill.call", "limits.topic_messages"),
        "families": ("kill.step", "kill.call", "kill.call", "net.delay", "net.disconnect"),
        "refrains": (
            *("link.duplicate", "link.duplicate", "link.duplicate", "link.duplicate"),
            *("link.busy", "link.busy", "link.busy", "link.busy"),
        ),
        "partings": ("net.disconnect", "net.delay", "jitter.all"),
        "front-door": (
            *("net.disconnect", "limits.outbox_bytes", "limits.stream_bytes"),
            "limits.requests_per_client",
        ),
    }
)
# Limits under which everybody is ended at every step, in every kind of order.
TIGHT: Final = (
    Fault(1, "limits.pages", 0, 10),
    Fault(2, "limits.batch_passes", 0, 1),
    Fault(3, "jitter.all", 0),
)
FOCUS_SHARE: Final = 0.4
EARLY: Final = 12  # passings of a point
STEPS: Final = 150  # of instances, in a run


def faults_of(ground: str, seed: int) -> tuple[Fault, ...]:
    """The swarm's draw from the kinds of the area, and some of its focus."""
    drawn = Faults(KINDS_OF.get(ground, KINDS)).draw(seed)
    dice = random.Random(f"{seed}/{ground}")
    found = {(fault.point, fault.at): fault.size for fault in drawn}
    for point in FOCUS.get(ground, ()):
        if dice.random() < FOCUS_SHARE:
            kind, _, name = point.partition(".")
            at = 0 if kind == "limits" else dice.randrange(_passings(point))
            found[point, at] = dice.choice(KNOBS[name]) if kind == "limits" else dice.random()
    return tuple(
        Fault(number, point, at, size) for number, ((point, at), size) in enumerate(found.items())
    )


def _passings(point: str) -> int:
    return STEPS if point == "kill.step" else min(POINTS.get(point, EARLY), EARLY)


def search(task: dict[str, Any], out: TextIO) -> None:
    """The whole task; `out` gets a line for each run, and another when it broke something."""
    found = _Search(out)
    ground: str = task["ground"]
    for name in PLAIN:
        found.run("plain", name, partial(_violations, PLAIN_SEED, (), name, "fifo"))
    found.begin(task["seconds"])
    for seed in range(1, task["seeds"] + 1):
        if not found.is_over:
            found.run(
                "seeds", f"seed {seed}", partial(_violations, seed, faults_of(ground, seed), ground)
            )
    if found.has_found:
        return
    found.begin(task["seconds"])
    for step in range(STEPS):
        if not found.is_over:
            tight = (Fault(0, "kill.step", step), *TIGHT)
            order = MODES[step % len(MODES)]
            run = partial(_violations, step, tight, ground, order)
            found.run("cancellation", f"step {step}", run)
    for everywhere, chosen in cancellations(ground):
        if found.is_over:
            return
        where = f"{everywhere.victims} {chosen}"
        found.run("cancellation", where, partial(_wrong, everywhere, chosen))


def _violations(*arguments: Any) -> Collection[str]:
    return Simulation(*arguments).run().violations


def _wrong(everywhere: Everywhere, chosen: Cancellation) -> Collection[str]:
    return everywhere.run(chosen).wrong


def cancellations(name: str) -> Iterator[tuple[Everywhere, Cancellation]]:
    """Everybody in a scenario, cancelled at each of their places; each new place comes first."""
    scenario = load_scenario(name)
    known: set[object] = set()
    later: list[tuple[Everywhere, Cancellation]] = []
    for seed in CANCELLED_SEEDS:
        census = census_of(scenario, seed)
        for victims in census.victims():
            everywhere = Everywhere(scenario, victims, seed)
            for stand in census.stands.get(victims, ()):
                place = (victims.kind, stand.sites)
                chosen = (everywhere, Cancellation(stand.step))
                if place in known:
                    later.append(chosen)
                else:
                    known.add(place)
                    yield chosen
    yield from later


@attrs.define(eq=False)
class _Search:
    """What has been found so far. A plain scenario that is broken does not end it."""

    out: TextIO
    has_found: bool = False
    _until: float = 0.0

    def begin(self, seconds: float) -> None:
        self.has_found = False
        self._until = perf_counter() + seconds

    @property
    def is_over(self) -> bool:
        return self.has_found or perf_counter() > self._until

    def run(self, method: str, where: str, run: Callable[[], Collection[str]]) -> None:
        signal.alarm(STANDSTILL_SECONDS)
        self._say({"method": method, "where": where})
        wrong = run()
        if wrong:
            self.has_found = True
            self._say({"wrong": list(wrong)})
        signal.alarm(0)

    def _say(self, line: dict[str, Any]) -> None:
        self.out.write(json.dumps(line) + "\n")
        self.out.flush()
