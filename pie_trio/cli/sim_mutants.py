"""`pie-trio sim mutants`: known defects put in one at a time, and how soon each is found.

Each runs in a process of its own; production has nothing of them. Ends with success only if every
one survives the plain scenarios and is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import typer

from pie_trio.cli.exit_codes import ExitCode, Usage
from pie_trio.cli.output import Output
from pie_trio.cli.sim_bars import demand_room, write_with_bars
from pie_trio.testing.interrupts import noticing_interrupts
from pie_trio.testing.mutants import MUTANTS
from pie_trio.testing.mutants.hunt import Finding, run_mutants
from pie_trio.testing.report import versions


def hunt(
    names: Sequence[str],
    seeds: int,
    seconds: float,
    processes: int,
    json_file: Path | None,
) -> None:
    output = Output.of_process()
    _demand_known(names)
    demand_room(json_file)

    def say(finding: Finding) -> None:
        output.say(f"{finding.name}: {finding.found_by or 'NOT FOUND'} {finding.where}".rstrip())

    with noticing_interrupts() as interrupted:
        report = run_mutants(
            names,
            seeds_max=seeds,
            seconds_each=seconds,
            processes=processes,
            say=say,
            stop=interrupted,
        )
    output.line(report.table())
    if interrupted():
        raise typer.Exit(ExitCode.INTERRUPTED)
    holds = report.holds
    if json_file is not None:
        raw = {"command": "sim mutants", "version": versions(), **report.raw()}
        holds = write_with_bars(json_file, raw, "mutants.py", output) and holds
    raise typer.Exit(ExitCode.OK if holds else ExitCode.CHECK_FAILED)


def _demand_known(names: Sequence[str]) -> None:
    known = [mutant.name for mutant in MUTANTS]
    unknown = sorted(set(names) - set(known))
    if unknown:
        near = get_close_matches(unknown[0], known) or known
        raise Usage(f"there is no mutant {unknown[0]!r}; there are {', '.join(near)}")
