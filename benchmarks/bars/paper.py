"""The bars of `pie-trio bench paper`, from the raw samples of its JSON.

    python benchmarks/bars/paper.py FILE

Ratios are taken within a round. A bar holds when its 95 % bound does, by a bootstrap over the
rounds; when the goal lies between the bounds it is not resolved, which does not hold, and what was
not measured does not hold either. Fewer than three rounds resolve nothing. It imports the standard
library only.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

RESAMPLES = 2000
ROUNDS_LEAST = 3  # fewer tell nothing about how far apart they are
HOLDS, FAILS, NOT_RESOLVED, MISSING = "holds", "fails", "not resolved", "missing"
AGENT_GOALS = {"react": 0.80, "codeact": 0.72, "swarm": 0.65}
POINTS_MAX = 0.03
STACKED_GOAL = 3.5
POLICY_GOALS = {"t-only": 1.08, "k-only": 2.8, "eager": 15.0}
TAX_GOALS = (  # kind, sequences, the most that the wall may show
    ("fused C", 1, 0.01),
    ("fused Python", 1, 0.01),
    ("fused C", 32, 0.01),
    ("fused Python", 32, 0.01),
    ("by passes C", 1, 0.05),
    ("by passes Python", 1, 0.05),
    ("by passes C", 32, 0.10),
    ("by passes Python", 32, 0.15),
)
PEERS = ("llama.cpp", "OpenVINO")
# What the paper's figure 8 has beside it, who stands for that here, and the most that its system
# took of that one's latency; where it was faster, it shall not be slower here.
SHAPE_OF_FIG8 = (
    ("text-completion", ("anew",), 1.07),
    ("prefix-tree", ("anew",), 1.0),
    ("tree-of-thought", ("anew",), 1.0),
    ("recursion-of-thought", ("anew",), 1.0),
    ("graph-of-thought", ("anew",), 1.0),
    ("skeleton-of-thought", ("anew",), 1.0),
    ("prefix-caching", ("anew",), 1.0),
    ("constrained-decoding", PEERS, 1.50),
    ("beam-search", PEERS, 1.67),
    ("speculative-decoding", PEERS, 1.06),
)
Record = dict[str, Any]
Rounds = dict[int, float]


def bars(record: Record) -> list[Record]:
    """One entry for each compared number."""
    return [*_tax(record), *_agents(record), *_stacked(record), *_policies(record), *_shape(record)]


def by_round(record: Record, section: str, case: str, measure: str) -> Rounds:
    return {
        sample["round"]: sample["value"]
        for sample in record["samples"]
        if (sample["section"], sample["case"], sample["measure"]) == (section, case, measure)
    }


def joined(of: Callable[..., float], *sides: Rounds) -> list[float]:
    """One value for each round that all sides have."""
    common = set(sides[0]).intersection(*sides[1:])
    return [of(*(side[turn] for side in sides)) for turn in sorted(common)]


def bounds(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % bounds of the median, by resampling."""
    chance = random.Random(1)
    drawn = sorted(
        statistics.median(chance.choices(values, k=len(values))) for _ in range(RESAMPLES)
    )
    return drawn[int(0.025 * RESAMPLES)], drawn[int(0.975 * RESAMPLES) - 1]


def bare_seconds(record: Record, case: str) -> Rounds:
    """The executor's seconds a step with nobody around it, right before and after the guests."""
    before, after = (by_round(record, "table4", case, when) for when in ("before", "after"))
    return {turn: (before[turn] + after[turn]) / 2 for turn in before if turn in after}


def noise(record: Record, case: str) -> list[float]:
    """How far the same bare batches are apart, before and after."""
    before, after = (by_round(record, "table4", case, when) for when in ("before", "after"))
    return joined(lambda a, b: abs(b / a - 1), before, after)


def _tax(record: Record) -> list[Record]:
    found = []
    for kind, count, goal in TAX_GOALS:
        bare = bare_seconds(record, f"{kind} {count}")
        period = by_round(record, "table4", f"{kind} {count}", "period")
        wall = joined(lambda mine, theirs: mine / theirs - 1, period, bare)
        found.append(_bar(f"{kind}, {count}: wall tax", wall, goal, at_most=True))
        if kind.startswith("fused"):
            cpu = by_round(record, "table4", f"{kind} {count}", "cpu")
            share = joined(lambda mine, theirs: mine / theirs, cpu, bare)
            name = f"{kind}, {count}: controller CPU a token, share of a step"
            found.append(_bar(name, share, 0.01, at_most=True))
    return found


def _agents(record: Record) -> list[Record]:
    found = []
    for agent, goal in AGENT_GOALS.items():
        section = f"fig6-{agent}"

        def of(way: str, measure: str, section: str = section) -> Rounds:
            return by_round(record, section, f"{way} 40 ms", measure)

        anew = joined(lambda a, b: a / b, of("inferlet", "latency"), of("anew", "latency"))
        beyond = joined(
            lambda mine, theirs, ours, asked, trip: (
                (mine - theirs + (asked - ours) * trip) / theirs
            ),
            *(of("inferlet", "latency"), of("cached", "latency"), of("inferlet", "trips")),
            *(of("cached", "trips"), of("cached", "trip")),
        )
        found += [
            _bar(f"{agent}, 40 ms: latency, ratio to anew", anew, goal, at_most=True),
            _bar(f"{agent}, 40 ms: beyond the ideal to cached", beyond, POINTS_MAX, at_most=True),
        ]
    return found


def _stacked(record: Record) -> list[Record]:
    best = by_round(record, "fig7", "all three", "rate")
    anew = by_round(record, "fig7", "anew", "rate")
    ratios = joined(lambda mine, theirs: mine / theirs, best, anew)
    return [_bar("stacked optimisations: throughput, ratio to anew", ratios, STACKED_GOAL)]


def _policies(record: Record) -> list[Record]:
    found = []
    for place, goals in (("model", POLICY_GOALS), ("real", dict.fromkeys(POLICY_GOALS, 1.0))):
        ours = by_round(record, "table5", f"{place} work-conserving", "rate")
        for policy, goal in goals.items():
            theirs = best_of(record, place, policy)
            ratios = joined(lambda mine, other: mine / other, ours, theirs)
            where = "fitted model" if place == "model" else "real worker"
            bar = _bar(f"work-conserving, {where}: ratio to {policy}", ratios, goal)
            fit = record.get("facts", {}).get("fit")
            if fit is not None and (place, policy) == ("model", "eager"):
                bar["ceiling"] = fit["most_against_eager"]  # no policy can be faster
            found.append(bar)
    return found


def best_of(record: Record, place: str, policy: str) -> Rounds:
    """The rates of a policy with the parameter at which its median is best."""
    cases = {
        sample["case"]
        for sample in record["samples"]
        if sample["section"] == "table5" and sample["case"].startswith(f"{place} {policy}")
    }
    rates = [by_round(record, "table5", case, "rate") for case in sorted(cases)]
    return max(rates, key=lambda each: statistics.median(each.values()), default={})


def _shape(record: Record) -> list[Record]:
    found = []
    for technique, ways, goal in SHAPE_OF_FIG8:
        mine = by_round(record, "fig8", f"{technique} inferlet", "latency")
        sides = [by_round(record, "fig8", f"{technique} {way}", "latency") for way in ways]
        theirs = min(
            [side for side in sides if side],
            key=lambda each: statistics.median(each.values()),
            default={},
        )
        ratios = joined(lambda a, b: a / b, mine, theirs)
        whom = "the fastest other engine" if ways == PEERS else ways[0]
        found.append(_bar(f"{technique}: latency, ratio to {whom}", ratios, goal, at_most=True))
    return found


def _bar(name: str, values: Sequence[float], goal: float, at_most: bool = False) -> Record:
    if not values:
        sides = {"goal": goal, "at_most": at_most}
        return {"name": name, "value": None, **sides, "holds": False, "verdict": MISSING}
    low, high = bounds(values)
    holds, fails = (high <= goal, low > goal) if at_most else (low >= goal, high < goal)
    if len(values) < ROUNDS_LEAST:
        holds = fails = False
    return {
        "name": name,
        "value": statistics.median(values),
        "low": low,
        "high": high,
        "goal": goal,
        "at_most": at_most,
        "holds": holds,
        "verdict": HOLDS if holds else FAILS if fails else NOT_RESOLVED,
    }


if __name__ == "__main__":
    for bar in bars(json.loads(Path(sys.argv[1]).read_text("utf-8"))):
        sys.stdout.write(f"{json.dumps(bar)}\n")
