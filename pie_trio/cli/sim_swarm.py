"""Many seeds on the command line: what failed, what was reached, how fast; and their bars.

Ends with success only if every rule held and what was asked for beside it did. Ctrl-C ends it with
a report of what was run until then, without bars. Nothing here waits but for the runs themselves.
"""

from __future__ import annotations

from pathlib import Path

import attrs
import typer

from pie_trio.cli.exit_codes import ExitCode, Usage
from pie_trio.cli.output import Output
from pie_trio.cli.progress import Steps, open_steps
from pie_trio.cli.sim_bars import demand_room, write_with_bars
from pie_trio.cli.sim_seeds import SeedOptions
from pie_trio.testing.interrupts import noticing_interrupts
from pie_trio.testing.line_coverage import LineCoverage, demand_tool, measure
from pie_trio.testing.rates import Rates, demand_simulator, measure_rates
from pie_trio.testing.report import failure_text, versions
from pie_trio.testing.scenarios import load_scenario
from pie_trio.testing.selfcheck import HASH_SEEDS, differing, digests_elsewhere
from pie_trio.testing.swarm import SwarmReport, SwarmTask, run_seeds

FAILURES_SHOWN = 5
CHECKED_EVERY = 20  # seeds: one of so many is run again elsewhere


@attrs.frozen
class Beside:
    """What `run_many` measures beside its seeds."""

    lines: bool = False
    rate_beside: Path | None = None  # a folder with another simulator

    def demand(self) -> None:
        """Refuses what cannot be measured, before anything is run."""
        if self.lines:
            demand_tool()
        if self.rate_beside is not None:
            demand_simulator(self.rate_beside)


@attrs.frozen
class Measured:
    """What was measured beside the seeds."""

    traces: dict[int, list[int]] = attrs.field(factory=dict)
    lines: LineCoverage | None = None
    rates: Rates | None = None

    def raw(self) -> dict[str, object]:
        lines, rates = self.lines, self.rates
        return {
            "selfcheck": self.traces,
            "lines": None if lines is None else [attrs.asdict(file) for file in lines.files],
            "rates": None if rates is None else rates.samples,
        }


def run_many(
    seeds: str,
    options: SeedOptions,
    processes: int,
    seconds: float | None,
    beside: Beside,
    json_file: Path | None,
) -> None:
    output = Output.of_process()
    chosen = seeds_of(seeds)
    if options.scenario is not None:
        load_scenario(options.scenario)
    beside.demand()
    demand_room(json_file)
    with open_steps(output) as steps:
        with noticing_interrupts() as interrupted:
            report = run_seeds(
                chosen,
                scenario=options.scenario,
                faults=options.kinds,
                scheduler=options.mode,
                processes=processes,
                seconds_max=seconds,
                on_done=lambda done: steps.count("running seeds", done, len(chosen)),
                stop=interrupted,
            )
        if interrupted():
            found = None
        else:
            found = _measured(report, options, chosen, seconds, beside, steps)
    for outcome in report.failures[:FAILURES_SHOWN]:
        output.line(failure_text(outcome, options.command(outcome)))
    _say_sums(report, found or Measured(), output)
    if found is None:
        raise typer.Exit(ExitCode.INTERRUPTED)
    holds = report.holds and not differing(found.traces)
    if json_file is not None:
        raw = {**raw_of(report, options), **found.raw()}
        holds = write_with_bars(json_file, raw, "sim.py", output) and holds
    raise typer.Exit(ExitCode.OK if holds else ExitCode.CHECK_FAILED)


def _measured(
    report: SwarmReport,
    options: SeedOptions,
    seeds: range,
    seconds: float | None,
    beside: Beside,
    steps: Steps,
) -> Measured | None:
    """None: it was interrupted."""
    lines = rates = None
    try:
        steps.say("running some of them again in other processes")
        traces = _again(report, options)
        if beside.lines:
            steps.say("measuring which lines they run")
            lines = measure(seeds.start, seeds.stop, seconds)
        if beside.rate_beside is not None:
            steps.say("measuring the rate of the scripted profile")
            rates = measure_rates(beside.rate_beside)
    except KeyboardInterrupt:
        return None
    return Measured(traces, lines, rates)


def _again(report: SwarmReport, options: SeedOptions) -> dict[int, list[int]]:
    """Every so many-th seed in fresh processes with other hash seeds; all its digests."""
    seeds = tuple(sorted(report.digests))[::CHECKED_EVERY]
    task = SwarmTask(seeds, options.scenario, options.kinds, options.mode)
    traces = digests_elsewhere(task)
    return {seed: [report.digests[seed], *traces[seed]] for seed in seeds}


def seeds_of(text: str) -> range:
    """`0..2000` or `7`."""
    first, dots, last = text.partition("..")
    try:
        begin = int(first)
        end = int(last) if dots else begin + 1
    except ValueError:
        raise Usage(f"--seeds: {text!r} is neither a number nor FROM..TO") from None
    if not 0 <= begin < end:
        raise Usage(f"--seeds: {text} names no seed")
    return range(begin, end)


def raw_of(
    report: SwarmReport,
    options: SeedOptions,
) -> dict[str, object]:
    """What the bars are computed from, but for what was measured beside."""
    return {
        "command": "sim run",
        "version": versions(),
        "options": attrs.asdict(options),
        "seeds": report.seeds,
        "real_seeds": report.real_seeds,
        "steps": report.steps,
        "fired": report.fired,
        "seconds": report.seconds,
        "profiles": report.profiles,
        "failures": [
            {
                "seed": outcome.seed,
                "scenario": outcome.scenario,
                "scheduler": outcome.scheduler,
                "violations": list(outcome.violations),
                "replay": options.command(outcome),
            }
            for outcome in report.failures
        ],
        "reached": dict(sorted(report.reached.items())),
        "never_reached": list(report.missing),
        "fired_points": dict(sorted(report.fired_points.items())),
    }


def _say_sums(report: SwarmReport, measured: Measured, output: Output) -> None:
    traces = measured.traces
    rate = report.seeds / report.seconds if report.seconds else 0.0
    output.line(
        f"{report.seeds} seeds ({report.real_seeds} with real wasm), {report.steps} steps, "
        f"{report.fired} faults struck, {report.seconds:.1f} s, {rate:.1f} seeds a second"
    )
    for name, (count, seconds) in report.profiles.items():
        output.line(f"{name}: {count} seeds, {count / seconds:.1f} a second of CPU")
    output.line(
        f"{len(traces)} of them again, in {len(HASH_SEEDS)} processes with other hash seeds: "
        f"{len(differing(traces))} differ"
    )
    for seed in differing(traces):
        output.line(f"not the same run each time: seed {seed}")
    for state in report.missing:
        output.line(f"never reached: {state}")
    for measure_of in (measured.lines, measured.rates):
        if measure_of is not None:
            output.line(measure_of.text())
    if report.failures:
        output.line(f"{len(report.failures)} seeds failed")
    else:
        output.line("every rule held" if report.seeds else "no seed was run")
