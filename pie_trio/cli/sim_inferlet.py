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
from pie_trio.cli.sim_bars import write_with_bars
from pie_trio.cli.sim_seeds import write_page
from pie_trio.config import Limits
from pie_trio.home import Home
from pie_trio.services.program_store import ProgramStore
from pie_trio.testing.inferlet_trial import Case, Trial, TrialReport, Verdict, fates, open_trial
from pie_trio.testing.report import summary, timeline_lines, versions

VALUE_CHARACTERS = 60
SHOWN_OF_A_KIND = 3


def try_inferlet(
    program: str,
    arguments: Sequence[str],
    case: str | None,
    page: Path | None,
    json_file: Path | None,
) -> None:
    output = Output.of_process()
    trial = _open(program, arguments)
    with open_steps(output) as steps:
        steps.say(f"running {trial.program} undisturbed")
        cases = trial.cases()
        if case is not None:
            _show_case(trial, _named(case, cases), page, output)
        verdicts = []
        for number, each in enumerate(cases):
            steps.count(f"trying {trial.program}", number, len(cases))
            verdicts.append(trial.judge(each))
    report = trial.report(verdicts)
    _show(report, _command(program, arguments), output)
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


def _show_case(trial: Trial, case: Case, page: Path | None, output: Output) -> None:
    outcome, verdict = trial.play(case.faults), trial.judge(case)
    for name, text in summary(outcome):
        output.line(f"  {name:<11} {text}")
    for line in timeline_lines(outcome):
        output.line(f"  {line}")
    output.line(f"{case.name}: {_told(verdict)}")
    if page is not None:
        write_page(page, f"{trial.program}, {case.name}", outcome, "")
        output.say(f"{len(outcome.timeline)} events in {page}")
    raise typer.Exit(ExitCode.OK if verdict.survived else ExitCode.CHECK_FAILED)


def _show(report: TrialReport, command: str, output: Output) -> None:
    base = report.baseline
    output.line(
        f"{report.program}: {len(base.calls)} host calls, {base.batches} batches, at most "
        f"{base.pages} pages; returns {_short(base.value)}"
    )
    for kind, verdicts in report.by_kind():
        how = ", ".join(f"{count} {fate}" for fate, count in fates(verdicts).items())
        output.line(f"  {_mark(verdicts):<13} {kind:<27} {how}")
        failed = [verdict for verdict in verdicts if not verdict.survived]
        for verdict in failed[:SHOWN_OF_A_KIND]:
            case = shlex.quote(verdict.case.name)
            output.line(f"            {verdict.case.place}: {_told(verdict)}")
            output.line(f"            replay: {command.format(case=case)}")
        if len(failed) > SHOWN_OF_A_KIND:
            output.line(f"            and {len(failed) - SHOWN_OF_A_KIND} more")


def _mark(verdicts: Sequence[Verdict]) -> str:
    if not all(verdict.survived for verdict in verdicts):
        return "NOT SURVIVED"
    return "ended by name" if any(verdict.error for verdict in verdicts) else "survived"


def _told(verdict: Verdict) -> str:
    facts = [text for text in (verdict.error, _short(verdict.told)) if text]
    return f"it {verdict.fate.value}" + (f": {', '.join(facts)}" if facts else "")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= VALUE_CHARACTERS else line[: VALUE_CHARACTERS - 3] + "..."


def _command(program: str, arguments: Sequence[str]) -> str:
    """With `{case}` where the case's name belongs."""
    given = shlex.join(["--inferlet", program]).replace("{", "{{").replace("}", "}}")
    tail = shlex.join(arguments).replace("{", "{{").replace("}", "}}")
    return f"pie-trio sim run {given} --case {{case}}" + (f" -- {tail}" if arguments else "")
