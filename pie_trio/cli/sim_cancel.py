"""`pie-trio sim cancel-everywhere`: whoever lives in a scenario, cancelled wherever they can be.

With all reference scenarios it also demands that every place of our sources at which an instance or
a connection can wait was cancelled at, and again in every clean-up. Ends with success only if all
of that held. A run that fails is told with the command that repeats it.
"""

from __future__ import annotations

from pathlib import Path

import attrs
import typer

from pie_trio.cli.exit_codes import ExitCode, Usage
from pie_trio.cli.output import Output
from pie_trio.cli.progress import open_steps
from pie_trio.cli.sim_bars import demand_room, write_with_bars
from pie_trio.testing.await_coverage import Coverage
from pie_trio.testing.campaign import REFERENCE, run_everywhere
from pie_trio.testing.everywhere import replay_cancellation
from pie_trio.testing.interrupts import noticing_interrupts
from pie_trio.testing.report import versions
from pie_trio.testing.scenarios import load_scenario

ALL = "all"


@attrs.frozen
class CancelOptions:
    """How much is enumerated; what `seconds` do not suffice for is counted."""

    faults: bool = False
    rotation: int = 0
    seconds: float | None = None
    processes: int = 2


def cancel_all(scenario: str, options: CancelOptions, json_file: Path | None) -> None:
    output = Output.of_process()
    names = REFERENCE if scenario == ALL else (scenario,)
    for name in names:
        load_scenario(name)  # refuses what is none before anything is begun
    demand_room(json_file)
    with open_steps(output) as steps:
        steps.say(f"cancelling everybody in {', '.join(names)} everywhere")
        with noticing_interrupts() as interrupted:
            coverage = run_everywhere(
                names,
                seconds=options.seconds,
                rotation=options.rotation,
                faults=options.faults,
                processes=min(options.processes, len(names)),
                stop=interrupted,
            )
    is_whole = scenario == ALL
    for line in (coverage.text() if is_whole else _short_text(coverage)).splitlines():
        output.line(line)
    holds = coverage.holds if is_whole else not coverage.report.failures
    if interrupted():
        raise typer.Exit(ExitCode.INTERRUPTED)
    if json_file is not None:
        raw = {
            **coverage.raw(),
            "version": versions(),
            "scenario": scenario,
            "options": attrs.asdict(options),
        }
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


def _short_text(coverage: Coverage) -> str:
    """Without the places that one scenario alone does not reach."""
    required = len(coverage.places.required)
    reached = required - len(coverage.missing_once)
    replays = [f"  replay: {command}" for command in coverage.commands]
    told = f"cancelled at {reached} of {required} places; all of them take --scenario {ALL}"
    return "\n".join([coverage.report.text(), told, *replays])
