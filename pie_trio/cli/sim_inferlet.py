"""`pie-trio sim run --inferlet`: a program of the user's under every fault, and what it survives.

One line a kind of fault, then each case that was not survived, with the command that repeats it.
Ends with success only if every case was survived.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import typer

from pie_trio.cli.embedded import find_program
from pie_trio.cli.exit_codes import ExitCode, Usage
from pie_trio.cli.output import Output
from pie_trio.cli.progress import open_steps
from pie_trio.cli.sim_bars import demand_room, write_with_bars
from pie_trio.cli.sim_seeds import write_page
from pie_trio.config import Limits
from pie_trio.home import Home
from pie_trio.services.program_store import ProgramStore
from pie_trio.testing.inferlet_trial import Case, Trial, open_trial
from pie_trio.testing.report import summary, timeline_lines, versions


def try_inferlet(
    program: str,
    arguments: Sequence[str],
    case: str | None,
    page: Path | None,
    json_file: Path | None,
) -> None:
    output = Output.of_process()
    demand_room(json_file)
    demand_room(page)
    trial = _open(program, arguments)
    if case is not None:
        again = _command(program, arguments).format(case=shlex.quote(case))
        _show_case(trial, _named(case, trial.cases()), page, again, output)
    with open_steps(output) as steps:
        steps.say(f"running {trial.program} undisturbed")
        report = trial.run(lambda done, count: steps.count("trying every fault", done, count))
    for line in report.text(_command(program, arguments)).splitlines():
        output.line(line)
    holds = report.holds
    if json_file is not None:
        raw = {"command": "sim run --inferlet", "version": versions(), **report.raw()}
        holds = write_with_bars(json_file, raw, "sim.py", output) and holds
    raise typer.Exit(ExitCode.OK if holds else ExitCode.CHECK_FAILED)


def _open(program: str, arguments: Sequence[str]) -> Trial:
    """A file, a folder or the name of a known program."""
    path = Path(program)
    if path.exists():
        return open_trial(path, arguments)
    record = find_program(ProgramStore(Home.default().programs, Limits()), program)
    return open_trial(record.artifact.parent, arguments)


def _named(name: str, cases: Sequence[Case]) -> Case:
    found = next((case for case in cases if case.name == name), None)
    if found is None:
        near = [case.name for case in cases if case.kind == name.partition("/")[0]]
        raise Usage(f"--case: there is no {name!r}; there are {', '.join(near or _kinds(cases))}")
    return found


def _kinds(cases: Sequence[Case]) -> list[str]:
    return list(dict.fromkeys(case.kind for case in cases))


def _show_case(trial: Trial, case: Case, page: Path | None, command: str, output: Output) -> None:
    outcome, verdict = trial.play(case.faults), trial.judge(case)
    for name, text in summary(outcome):
        output.line(f"  {name:<11} {text}")
    for line in timeline_lines(outcome):
        output.line(f"  {line}")
    output.line(f"{case.name}: {verdict}")
    if page is not None:
        write_page(page, f"{trial.program}, {case.name}", outcome, command)
        output.say(f"{len(outcome.timeline)} events in {page}")
    raise typer.Exit(ExitCode.OK if verdict.survived else ExitCode.CHECK_FAILED)


def _command(program: str, arguments: Sequence[str]) -> str:
    """With `{case}` where the case's name belongs."""
    given = shlex.join(["--inferlet", program]).replace("{", "{{").replace("}", "}}")
    tail = shlex.join(arguments).replace("{", "{{").replace("}", "}}")
    return f"pie-trio sim run {given} --case {{case}}" + (f" -- {tail}" if arguments else "")
