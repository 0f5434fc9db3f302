"""`pie-trio sim cancel-everywhere`: whoever lives in a scenario, cancelled wherever they can be.

Tells which places of our sources were cancelled at and which were not. Ends with success only if
every run held and nothing was left out. A run that fails is told with the command that repeats it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import attrs
import typer

from pie_trio.cli.exit_codes import ExitCode, Usage
from pie_trio.cli.output import Output
from pie_trio.cli.sim_bars import write_with_bars
from pie_trio.testing.await_graph import AwaitGraph, PathSite
from pie_trio.testing.await_sites import Site
from pie_trio.testing.cancellation import Plan, Report, Run, enumerate_runs
from pie_trio.testing.everywhere import (
    BACKGROUND,
    Everywhere,
    Victims,
    census_of,
    replay_cancellation,
)
from pie_trio.testing.report import versions
from pie_trio.testing.scenarios import SCENARIOS, load_scenario

FAILURES_SHOWN = 5
SITES_SHOWN = 12


@attrs.frozen
class CancelOptions:
    """How much is enumerated."""

    beside_faults: bool = False
    once: bool = False
    stride: int = 1
    seconds: float | None = None


@attrs.define
class Sum:
    """What all victims of all scenarios show together."""

    report: Report
    failures: list[str] = attrs.field(factory=list)  # the commands that repeat them
    stood: set[Site] = attrs.field(factory=set)  # where anybody waited at all


def cancel_all(
    scenario: str, victim: str | None, options: CancelOptions, json_file: Path | None
) -> None:
    output = Output.of_process()
    total = Sum(Report(scenario))
    until = None if options.seconds is None else perf_counter() + options.seconds
    for name in list(SCENARIOS) if scenario == "all" else [scenario]:
        for victims, report in _reports(name, victim, options, until, total):
            output.line(report.text().splitlines()[0])
            for run in report.failures[:FAILURES_SHOWN]:
                output.line(f"  {run}\n  replay  {_command(name, victims, run)}")
            total.failures += [_command(name, victims, run) for run in report.failures]
            total.report.merge(report)
    raw = raw_of(total, options)
    _say_sites(raw, total, output)
    holds = total.report.holds
    if json_file is not None:
        holds = write_with_bars(json_file, raw, "sim.py", output) and holds
    raise typer.Exit(ExitCode.OK if holds else ExitCode.CHECK_FAILED)


def replay_one(scenario: str, victim: str, handle: str) -> None:
    output = Output.of_process()
    try:
        run = replay_cancellation(scenario, victim, handle)
    except ValueError as error:
        raise Usage(f"--handle: {error}") from error
    output.line(str(run))
    raise typer.Exit(ExitCode.CHECK_FAILED if run.wrong else ExitCode.OK)


def _reports(
    name: str, victim: str | None, options: CancelOptions, until: float | None, total: Sum
) -> Iterator[tuple[Victims, Report]]:
    scenario = load_scenario(name)
    census = census_of(scenario)
    total.stood |= census.stood
    points = [point for point, _at in BACKGROUND]
    for victims in census.victims():
        if victim is not None and victim not in (victims.kind, str(victims)):
            continue
        left = None if until is None else max(0.0, until - perf_counter())
        plan = Plan(
            twice=not options.once,
            faults=options.beside_faults,
            stride=options.stride,
            seconds=left,
        )
        run = Everywhere(scenario, victims).run
        yield victims, enumerate_runs(f"{name}, {victims}", run, points, plan)


def _command(name: str, victims: Victims, run: Run) -> str:
    words = ["pie-trio", "sim", "cancel-everywhere", "--scenario", name]
    return shlex.join([*words, "--victim", str(victims), "--handle", str(run.cancellation)])


def raw_of(total: Sum, options: CancelOptions) -> dict[str, object]:
    """What the bars are computed from."""
    sites = AwaitGraph().sites_on_path()
    report = total.report
    return {
        "command": "sim cancel-everywhere",
        "version": versions(),
        "scenario": report.name,
        "options": attrs.asdict(options),
        "runs": report.runs,
        "runs_by_mode": report.by_mode,
        "left_out": report.skipped,
        "seconds": report.seconds,
        "failures": total.failures,
        "sites": [_raw_site(site, report) for site in sites],
    }


def _raw_site(site: PathSite, report: Report) -> dict[str, object]:
    return {
        "site": str(site.site),
        "function": site.function,
        "text": site.text,
        "in_clean_up": site.in_clean_up,
        "once": site.site in report.once,
        "twice": site.site in report.twice or site.site in report.cleaning,
    }


def _say_sites(raw: dict[str, object], total: Sum, output: Output) -> None:
    report = total.report
    output.line(
        f"{report.runs} runs, {len(report.failures)} failed, {report.skipped} left out, "
        f"{report.seconds:.1f} s"
    )
    sites = AwaitGraph().sites_on_path()
    once = [site for site in sites if site.site not in report.once]
    output.line(
        f"cancelled at {len(sites) - len(once)} of {len(sites)} places on the path of an instance "
        "or a connection"
    )
    for site in once[:SITES_SHOWN]:
        output.line(f"  never at {site.site} in {site.function}: {site.text}")
    if len(once) > SITES_SHOWN:
        output.line(f"  and {len(once) - SITES_SHOWN} more")
