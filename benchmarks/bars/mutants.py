"""The bars of a hunt for mutants, computed from its raw findings alone.

    python benchmarks/bars/judge.py mutants.py FILE.json

Writes the bars into the file and prints them. It imports nothing of the product, so that a mistake
there cannot make its own bar hold. Who was not found by a seed counts as one seed more than the
most.
"""

from __future__ import annotations

import statistics
from typing import Any

MUTANTS_MIN = 40
SEEDS_MEDIAN_MAX = 25
BORDERS_MIN = 10
BORDERS = (
    "pie_trio/wasm/",
    "pie_trio/services/gateway/",
    "pie_trio/services/worker_link",
    "pie_trio/services/zmq_socket",
    "pie_trio/client/",
)


def bars(raw: dict[str, Any]) -> list[dict[str, Any]]:
    """One bar a promise; each has a name, a value, a goal, and whether it holds."""
    mutants = raw["mutants"]
    found = [each for each in mutants if each["found_by"]]
    seeds = [
        each["seeds"] if each["found_by"] == "seeds" else raw["seeds_max"] + 1 for each in mutants
    ]
    median = statistics.median(seeds) if seeds else float("inf")
    spoilt = [each["name"] for each in mutants if each["plain"]]
    borders = [each for each in mutants if each["file"].startswith(BORDERS)]
    whole = [
        _bar("mutants", len(mutants), f">= {MUTANTS_MIN}", len(mutants) >= MUTANTS_MIN),
        _bar(
            "mutants of links, wasm, gateway and clients",
            len(borders),
            f">= {BORDERS_MIN}",
            len(borders) >= BORDERS_MIN,
        ),
    ]
    return [
        _bar("mutants found", len(found), f"== {len(mutants)}", len(found) == len(mutants)),
        _bar("median of seeds", median, f"<= {SEEDS_MEDIAN_MAX}", median <= SEEDS_MEDIAN_MAX),
        _bar("mutants that fail the plain scenarios", len(spoilt), "== 0", not spoilt),
        *(whole if raw["is_whole"] else []),
    ]


def _bar(name: str, value: float, goal: str, holds: bool) -> dict[str, Any]:
    return {"name": name, "value": value, "goal": goal, "holds": holds}
