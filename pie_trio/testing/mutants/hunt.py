"""Hunts mutants: each in a fresh process, some processes at a time, and reports how each was found.

A mutant is first run through the plain scenarios, which it has to survive, then through seeds, then
through cancellations everywhere, until something is violated. A process that stands still is ended
by its own alarm, and that counts as a finding: nothing else that is wrong with a process does.
"""

from __future__ import annotations

import json
import signal
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import attrs
import trio

from pie_trio.testing.interrupts import Stop, never
from pie_trio.testing.mutants import MUTANTS, Mutant
from pie_trio.testing.mutants import child as child_module

SEEDS_MAX: Final = 100
LOOK_SECONDS: Final = 0.1  # so often it is asked whether somebody interrupts
SECONDS_EACH: Final = 40.0  # for the seeds and for the cancellations of one mutant, each
STOOD_STILL: Final = "the process stood still"


class HuntFailed(Exception):
    """The process of a mutant broke; this says nothing about the mutant."""


@attrs.frozen
class Finding:
    """What became of one mutant."""

    name: str
    file: str
    plain: tuple[str, ...]  # what the plain scenarios already violate; they should violate nothing
    found_by: str  # "seeds", "cancellation", or "" when it was not found
    seeds: int  # how many were tried, the one that found it included
    runs: int  # all of them, the plain ones aside
    invariant: str
    where: str  # the seed or the cancellation that found it
    seconds: float

    @property
    def survives(self) -> bool:
        return not self.plain


@attrs.frozen
class Report:
    """All findings of one hunt."""

    findings: tuple[Finding, ...]
    seconds: float
    seeds_max: int = SEEDS_MAX

    @property
    def holds(self) -> bool:
        return all(each.survives and each.found_by for each in self.findings)

    @property
    def median_seeds(self) -> float:
        """Who was not found by a seed counts as one more than the most."""
        seeds = [
            each.seeds if each.found_by == "seeds" else self.seeds_max + 1 for each in self.findings
        ]
        return statistics.median(seeds or [0])

    def raw(self) -> dict[str, Any]:
        """What the bars are computed from."""
        return {
            "seconds": self.seconds,
            "seeds_max": self.seeds_max,
            "is_whole": len(self.findings) == len(MUTANTS),
            "mutants": [attrs.asdict(each) for each in self.findings],
        }

    def table(self) -> str:
        rows = [_row(each) for each in self.findings]
        found = sum(bool(each.found_by) for each in self.findings)
        total = (
            f"{found} of {len(rows)} found, median {self.median_seeds:g} seeds,"
            f" {self.seconds:.0f} s"
        )
        return "\n".join([*rows, total])


def _row(finding: Finding) -> str:
    if not finding.survives:
        how = f"fails the plain scenarios: {finding.plain[0]:.80}"
    elif not finding.found_by:
        how = f"NOT FOUND in {finding.runs} runs"
    elif finding.found_by == "seeds":
        how = f"{finding.seeds:3d} seeds     {finding.invariant:.80}"
    else:
        how = f"cancellation  {finding.invariant:.80}"
    return f"{finding.name:30} {how}"


def choose(names: Sequence[str] = ()) -> list[Mutant]:
    """Those with these names, or all of them. Raises `KeyError`."""
    by_name = {mutant.name: mutant for mutant in MUTANTS}
    return [by_name[name] for name in names] if names else list(MUTANTS)


def rotating_sample(count: int, turn: int) -> list[Mutant]:
    """Some of them, spread over the areas; the next turn has others, until all have had theirs."""
    stride = -(-len(MUTANTS) // count)
    return list(MUTANTS[turn % stride :: stride])


async def hunt_all(
    mutants: Sequence[Mutant] = MUTANTS,
    *,
    seeds_max: int = SEEDS_MAX,
    seconds_each: float = SECONDS_EACH,
    processes: int = 2,
    say: Callable[[Finding], None] = lambda _finding: None,
    stop: Stop = never,
) -> Report:
    """Cancelled: the processes that run are ended, and nothing is reported.

    `stop` ends them, too, and then those are reported that were through.
    """
    began = perf_counter()
    findings: dict[str, Finding] = {}
    room = trio.CapacityLimiter(processes)

    async def hunt_in_turn(mutant: Mutant) -> None:
        async with room:
            findings[mutant.name] = finding = await hunt(mutant, seeds_max, seconds_each)
        say(finding)

    async def look() -> None:
        while not stop():  # noqa: ASYNC110  # a signal sets no event
            await trio.sleep(LOOK_SECONDS)
        hunts.cancel_scope.cancel()

    async with trio.open_nursery() as looking:
        looking.start_soon(look)
        async with trio.open_nursery() as hunts:
            for mutant in mutants:
                hunts.start_soon(hunt_in_turn, mutant)
        looking.cancel_scope.cancel()
    ordered = tuple(findings[mutant.name] for mutant in mutants if mutant.name in findings)
    return Report(ordered, perf_counter() - began, seeds_max)


def run_mutants(
    names: Sequence[str] = (),
    *,
    seeds_max: int = SEEDS_MAX,
    seconds_each: float = SECONDS_EACH,
    processes: int = 2,
    say: Callable[[Finding], None] = lambda _finding: None,
    stop: Stop = never,
) -> Report:
    """For callers outside of Trio."""

    async def main() -> Report:
        return await hunt_all(
            choose(names),
            seeds_max=seeds_max,
            seconds_each=seconds_each,
            processes=processes,
            say=say,
            stop=stop,
        )

    return trio.run(main)


async def hunt(
    mutant: Mutant, seeds_max: int = SEEDS_MAX, seconds_each: float = SECONDS_EACH
) -> Finding:
    """One mutant in a process of its own. Raises `HuntFailed`."""
    began = perf_counter()
    patch = {"module": mutant.module, "before": mutant.before, "after": mutant.after}
    task = {
        "path": sys.path,
        "patch": patch,
        "ground": mutant.ground,
        "seeds": seeds_max,
        "seconds": seconds_each,
    }
    lines, stood_still = await _run_child(mutant.name, task)
    plain = [wrong for line in lines if line["method"] == "plain" for wrong in line["wrong"]]
    if stood_still and lines and lines[-1]["method"] == "plain":
        plain.append(STOOD_STILL)
    runs = [line for line in lines if line["method"] != "plain"]
    last = runs[-1] if runs else None
    wrong = [*(last["wrong"] if last else ()), *([STOOD_STILL] if stood_still else ())]
    return Finding(
        name=mutant.name,
        file=mutant.file,
        plain=tuple(plain),
        found_by=last["method"] if last is not None and wrong else "",
        seeds=sum(line["method"] == "seeds" for line in runs),
        runs=len(runs),
        invariant=wrong[0] if wrong else "",
        where=last["where"] if last is not None and wrong else "",
        seconds=round(perf_counter() - began, 2),
    )


async def _run_child(name: str, task: dict[str, Any]) -> tuple[list[dict[str, Any]], bool]:
    """What it wrote, a run a line, and whether its own alarm ended it."""
    path = Path(child_module.__file__)
    done = await trio.run_process(
        [sys.executable, str(path)],
        stdin=json.dumps(task).encode() + b"\n",
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        process_group=0,  # Ctrl-C of a terminal is for its parent
    )
    stood_still = done.returncode == -signal.SIGALRM
    if done.returncode != 0 and not stood_still:
        raise HuntFailed(f"{name}: {done.stderr.decode(errors='replace')[-2000:]}")
    return _merged(done.stdout.decode()), stood_still


def _merged(text: str) -> list[dict[str, Any]]:
    """One entry a run: it is announced in a line, and what was wrong follows in another."""
    runs: list[dict[str, Any]] = []
    for line in text.splitlines():
        said = json.loads(line)
        if "wrong" in said:
            runs[-1]["wrong"] = said["wrong"]
        else:
            runs.append({**said, "wrong": []})
    return runs
