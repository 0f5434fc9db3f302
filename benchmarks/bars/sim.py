"""The bars of the simulation verbs, computed from their raw figures alone.

    python benchmarks/bars/judge.py sim.py FILE.json

Writes the bars into the file and prints them; fails if one does not hold. It imports nothing of the
product, so that a mistake there cannot make its own bar hold. What was not measured has no bar.
"""

from __future__ import annotations

import random
from typing import Any

REAL_SHARE_MIN = 0.25
REAL_SHARE_SEEDS = 200  # with fewer seeds the share says little
LINE_COVERAGE_MIN = 0.85
PROTOTYPE_RATE_SHARE_MIN = 0.5
RESAMPLES = 2000
RESAMPLING_SEED = 4

Bar = dict[str, Any]


def bars(raw: dict[str, Any]) -> list[Bar]:
    """One bar a promise; each has a name, a value, a goal, and whether it holds."""
    of_command = {
        "sim run": _seed_bars,
        "sim run --inferlet": _inferlet_bars,
        "sim cancel-everywhere": _cancel_bars,
    }
    return of_command[raw["command"]](raw)


def _seed_bars(raw: dict[str, Any]) -> list[Bar]:
    found = [_none(f"seeds of {raw['seeds']} that break a rule", len(raw["failures"]))]
    found.append(_at_least("seeds run", raw["seeds"], 1))
    found.append(_none("interesting states never reached", len(raw["never_reached"])))
    share = raw["real_seeds"] / raw["seeds"] if raw["seeds"] else 0.0
    if raw["options"]["scenario"] is None and raw["seeds"] >= REAL_SHARE_SEEDS:
        found.append(_at_least("share of seeds with real wasm", share, REAL_SHARE_MIN))
    check = raw.get("selfcheck")
    if check is not None:
        differing = [seed for seed, traces in check.items() if len(set(traces)) != 1]
        found.append(_none(f"of {len(check)} seeds with traces that differ", len(differing)))
    lines = raw.get("lines")
    if lines is not None:
        covered = sum(file["covered"] for file in lines) / sum(file["all"] for file in lines)
        found.append(_at_least("line coverage", covered, LINE_COVERAGE_MIN))
    rates = raw.get("rates")
    if rates is not None:
        found.append(_rate_bar(list(zip(rates["scripted"], rates["prototype"], strict=True))))
    return found


Round = tuple[dict[str, float], dict[str, float]]  # ours, the prototype's


def _rate_bar(rounds: list[Round]) -> Bar:
    """Holds when the lower 95 % bound does, by a bootstrap over the rounds."""
    draw = random.Random(RESAMPLING_SEED)
    ratios = sorted(_ratio(draw.choices(rounds, k=len(rounds))) for _ in range(RESAMPLES))
    bounds = [ratios[round(share * (RESAMPLES - 1))] for share in (0.025, 0.975)]
    bar = _at_least("rate beside the prototype's", _ratio(rounds), PROTOTYPE_RATE_SHARE_MIN)
    holds = bounds[0] >= PROTOTYPE_RATE_SHARE_MIN
    return bar | {"low": bounds[0], "high": bounds[1], "holds": holds}


def _ratio(rounds: list[Round]) -> float:
    ours, theirs = zip(*rounds, strict=True)
    return _rate(ours) / _rate(theirs)


def _rate(samples: tuple[dict[str, float], ...]) -> float:
    """Scenarios a second of CPU time."""
    return sum(s["scenarios"] for s in samples) / sum(s["seconds"] for s in samples)


def _inferlet_bars(raw: dict[str, Any]) -> list[Bar]:
    lost = [case["name"] for case in raw["cases"] if not case["survived"]]
    return [_none(f"of {len(raw['cases'])} cases not survived", len(lost))]


def _cancel_bars(raw: dict[str, Any]) -> list[Bar]:
    found = [_none(f"of {raw['runs']} cancelled runs that break a rule", len(raw["failures"]))]
    if raw["options"]["seconds"] is None:
        found.append(_none("runs left out", raw["left_out"]))
    if raw["scenario"] == "all":
        sites = raw["sites"]
        cleaning = [site for site in sites if site["in_clean_up"]]
        found.append(_all("places cancelled at", sites, "once"))
        found.append(_all("places of clean-ups cancelled at again", cleaning, "twice"))
    return found


def _none(name: str, value: int) -> Bar:
    return {"name": name, "value": value, "goal": "== 0", "holds": value == 0}


def _at_least(name: str, value: float, goal: float) -> Bar:
    return {"name": name, "value": value, "goal": f">= {goal:g}", "holds": value >= goal}


def _all(name: str, sites: list[dict[str, Any]], key: str) -> Bar:
    count = sum(bool(site[key]) for site in sites)
    goal = f"== {len(sites)}"
    return {"name": name, "value": count, "goal": goal, "holds": count == len(sites)}
