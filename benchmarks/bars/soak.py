"""The bars of `pie-trio bench soak`, from the raw samples of its JSON.

    python benchmarks/bars/soak.py FILE

A part that was not run has no bars; the slope of the memory is judged only when the load lasted
long enough to have one. It imports the standard library only.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

DETECTION_SECONDS = 0.050
GONE_SECONDS = 1.0
NAMED_ENDS = ("return", "WorkerLost")
SLOPE_SECONDS_MIN = 60.0
SLOPE_MIB_A_MINUTE = 8.0
GOES_SHARE_MIN = 0.15  # of all launches: the die says 0.2
Record = dict[str, Any]


def bars(record: Record) -> list[Record]:
    """One bar a promise; each has a name, a value, a goal, and whether it holds."""
    found: list[Record] = []
    for model, part in record.get("workers", {}).items():
        found += _worker_bars(model, part)
    if record.get("servers"):
        found += _server_bars(record["servers"])
    if "clients" in record:
        found += _client_bars(record["clients"])
    return found


def detections(part: Record) -> list[float]:
    """Seconds from each kill to the engine's knowledge."""
    return [each["known_at"] - each["killed_at"] for each in part["rounds"]]


def quantile(values: list[float], share: float) -> float:
    """The nearest rank."""
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]


def slope(rests: list[list[float]]) -> float:
    """MiB a minute: the median of the slopes between any two rests but the first."""
    pairs = combinations(rests[1:], 2)
    slopes = [(later[1] - early[1]) / (later[0] - early[0]) for early, later in pairs]
    return 60 * statistics.median(slopes) if slopes else 0.0


def _worker_bars(model: str, part: Record) -> list[Record]:
    rounds = part["rounds"]
    ends = [end for each in rounds for end in each["ends"]]
    nameless = [end for end in ends if end not in NAMED_ENDS and end != "hangs"]
    other = [
        text != right
        for each in rounds
        for text, right in zip(each["bystanders"], part["expected"], strict=True)
    ]
    seconds = detections(part)
    name = f"worker killed ({model}, {len(rounds)} times)"
    return [
        _least(f"{name}: kills within a batch", sum(r["in_batch"] for r in rounds), len(rounds)),
        _least(f"{name}: live instances", min(r["live"] for r in rounds), part["victims"]),
        _none(f"{name}: of {len(ends)} calls that hang", ends.count("hangs")),
        _none(f"{name}: ends without a name", len(nameless)),
        _most(f"{name}: detection p50, s", quantile(seconds, 0.5), DETECTION_SECONDS),
        _most(f"{name}: detection p99, s", quantile(seconds, 0.99), DETECTION_SECONDS),
        _least(f"{name}: bystanders that ran then", min(r["bystanders_live"] for r in rounds), 1),
        _none(f"{name}: of {len(other)} bystanders with another text", sum(other)),
    ]


def _server_bars(kills: list[Record]) -> list[Record]:
    found = []
    for case in dict.fromkeys((kill["model"], kill["state"]) for kill in kills):
        seconds = [kill["seconds"] for kill in kills if (kill["model"], kill["state"]) == case]
        name = f"server killed ({case[0]}, {case[1]}, {len(seconds)} times)"
        found.append(_most(f"{name}: s until no process is left", max(seconds), GONE_SECONDS))
    return found


def _client_bars(part: Record) -> list[Record]:
    status = part["status"]
    used = [value for name, value in status.items() if name.endswith(".kv_pages_used")]
    resident = [value for name, value in status.items() if name.endswith(".instances")]
    wrong = sum(count for times, count in part["terminals"].items() if times != "1")
    name = f"{part['clients']} clients, {part['launched']} launches"
    failed = {end: count for end, count in part["ends"].items() if end != "return"}
    found = [
        _least(f"{name}: share that disconnects", part["went"] / part["launched"], GOES_SHARE_MIN),
        _none(f"{name}: pages leaked", sum(used) if used else -1),
        _none(f"{name}: instances left", sum(resident) + part["unfinished"] if resident else -1),
        _none(f"{name}: of those that stayed, not told their end just once", wrong),
        _none(f"{name}: ends in an error", sum(failed.values())),
        _none(f"{name}: clients' failures", len(part["failures"])),
        _none(f"{name}: tracebacks in the log", part["tracebacks"]),
        _none(f"{name}: exit status of the server", part["status_of_exit"]),
    ]
    if part["seconds"] >= SLOPE_SECONDS_MIN:
        value = slope(part["rests"])
        found.append(_most(f"{name}: memory at rest, MiB a minute", value, SLOPE_MIB_A_MINUTE))
    return found


def _none(name: str, value: int) -> Record:
    return {"name": name, "value": value, "goal": "== 0", "holds": value == 0}


def _least(name: str, value: float, goal: float) -> Record:
    return {"name": name, "value": value, "goal": f">= {goal:g}", "holds": value >= goal}


def _most(name: str, value: float, goal: float) -> Record:
    return {"name": name, "value": value, "goal": f"<= {goal:g}", "holds": value <= goal}


if __name__ == "__main__":
    for bar in bars(json.loads(Path(sys.argv[1]).read_text("utf-8"))):
        sys.stdout.write(f"{json.dumps(bar)}\n")
