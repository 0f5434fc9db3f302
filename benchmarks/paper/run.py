"""`pie-trio bench paper`: the figures and tables of the paper, on our engine and this machine.

Each section starts served engines of its own, and its ratios are of one run. With `--json FILE` the
sections that this run does not measure are kept from the file, if they are of the same model and
scale: so a long evaluation can be taken in pieces.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from benchmarks.bars.paper import bars
from benchmarks.paper import (
    agents,
    constraints,
    launches,
    policies,
    stacked,
    tax,
    techniques,
)
from benchmarks.paper.record import Run, Sizes
from benchmarks.paper.report import render
from pie_trio.config import ModelSettings
from pie_trio.errors import BadConfig
from pie_trio.home import Home
from pie_trio.services.model_store import DEFAULT_MODEL, ModelStore

FAILED = 5  # the exit code when a bar does not hold
ROUNDS, ROUNDS_QUICK = 5, 1
SCALE_QUICK = 0.5
QUICK_SHARE = 0.2  # of what is done once: no other engines, nor many at once
PRETEND_STEP_SECONDS = 0.02


@attrs.frozen
class Section:
    """A part that is measured as a whole, and about how long that takes."""

    measure: Callable[[Run], None]
    seconds: float  # to start, and whatever is done once; at scale 1 on two cores
    round_seconds: float

    def about(self, sizes: Sizes) -> float:
        once = QUICK_SHARE * self.seconds if sizes.is_quick else self.seconds
        return once + sizes.rounds * self.round_seconds * sizes.scale


SECTIONS: dict[str, Section] = {
    "table4": Section(tax.measure, 8, 150),
    "fig6-react": Section(partial(agents.measure, agent="react"), 90, 25),
    "fig6-codeact": Section(partial(agents.measure, agent="codeact"), 90, 25),
    "fig6-swarm": Section(partial(agents.measure, agent="swarm"), 80, 40),
    "table5": Section(policies.measure, 110, 50),
    "fig7": Section(stacked.measure, 15, 70),
    "fig8": Section(techniques.measure, 220, 100),
    "constraint": Section(constraints.measure, 10, 16),
    "fig9": Section(launches.measure_launches, 2, 30),
    "fig10": Section(launches.measure_calls, 5, 15),
}
Record = dict[str, Any]


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    sizes = Sizes(
        rounds=options.rounds or (ROUNDS_QUICK if options.quick else ROUNDS),
        scale=options.scale or (SCALE_QUICK if options.quick else 1.0),
        is_quick=options.quick,
    )

    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    record = _kept(options.json, options.model, sizes)
    chosen = _chosen(options.only)
    minutes = sum(SECTIONS[section].about(sizes) for section in chosen) / 60
    say(f"{len(chosen)} sections, {sizes.rounds} rounds: about {minutes:.0f} minutes")
    for section in chosen:
        _measure(section, options, sizes, record, say)
        record["bars"] = bars(record)
        if options.json is not None:
            options.json.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    sys.stdout.write(render(record))
    if options.plots is not None:
        from benchmarks.paper.plots import plot

        plot(record, options.plots)
    return 0 if all(bar["holds"] for bar in record["bars"]) else FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pie-trio bench paper", description=__doc__)
    parser.add_argument("--scale", type=float, help="more or less of everything (default: 1)")
    parser.add_argument(
        "--only", action="append", metavar="SECTION", help=f"may be repeated: {', '.join(SECTIONS)}"
    )
    parser.add_argument("--quick", action="store_true", help="one round of everything, smaller")
    parser.add_argument("--rounds", type=int, help="how often each case is measured")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a stored model's name")
    parser.add_argument("--pretend", action="store_true", help="a worker that only sleeps")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there too")
    parser.add_argument("--plots", type=Path, metavar="DIRECTORY", help="draw the figures there")
    return parser


def _chosen(only: Sequence[str] | None) -> list[str]:
    """A section, or all whose name begins so; and several may be joined by commas."""
    if only is None:
        return list(SECTIONS)
    wanted = [name for each in only for name in each.split(",")]
    unknown = [name for name in wanted if not any(s.startswith(name) for s in SECTIONS)]
    if unknown:
        raise BadConfig(f"there is no section {unknown[0]!r}, but {', '.join(SECTIONS)}")
    return [section for section in SECTIONS if section.startswith(tuple(wanted))]


def _kept(path: Path | None, model: str, sizes: Sizes) -> Record:
    """What the file has of the same model and scale, or nothing yet."""
    empty: Record = {"model": model, "scale": sizes.scale, "samples": [], "facts": {}, "runs": {}}
    if path is None or not path.is_file():
        return empty
    found: Record = json.loads(path.read_text("utf-8"))
    is_same = all(found.get(key) == empty[key] for key in ("model", "scale"))
    return found if is_same else empty


def _measure(
    section: str,
    options: argparse.Namespace,
    sizes: Sizes,
    record: Record,
    say: Callable[[str], object],
) -> None:
    model = ModelSettings(options.model)
    if options.pretend:
        model = ModelSettings("pretend", pretend=True, pretend_step_seconds=PRETEND_STEP_SECONDS)
    else:
        ModelStore(Home.default().models).open(options.model)
    record["samples"] = [s for s in record["samples"] if s["section"] != section]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="pie-bench-") as folder:
        run = Run(model, sizes, Path(folder), say)
        SECTIONS[section].measure(run)
    record["samples"] += run.samples
    record["facts"].update(run.facts)
    record["runs"][section] = {
        "rounds": sizes.rounds,
        "seconds": round(time.perf_counter() - started),
        "load": os.getloadavg()[0],
        "began": time.strftime("%Y-%m-%d %H:%M", time.gmtime(time.time())),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
