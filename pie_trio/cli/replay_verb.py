"""`pie-trio replay`: a recorded run again, without an engine, a worker or a model.

What the program says goes to stdout as it did then; how it compares goes to stderr. Ends with
success only if the program did just what it did when it was recorded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import trio
import typer

from pie_trio.cli.embedded import find_program
from pie_trio.cli.exit_codes import ExitCode
from pie_trio.cli.options import ConfigOption, Flags, resolve
from pie_trio.cli.output import Output
from pie_trio.cli.progress import open_steps
from pie_trio.cli.session import leave_with, open_interrupts
from pie_trio.cli.transcript import Transcript
from pie_trio.home import Home
from pie_trio.journal import read_journal
from pie_trio.messages import OutputEvent
from pie_trio.replaying import Agreement, Verdict
from pie_trio.replaying import replay as replay_journal
from pie_trio.services.program_store import ProgramStore

ProgramOption = Annotated[
    str | None,
    typer.Option("--program", help="Run this instead of the program that was recorded."),
]


def replay(
    journal: Annotated[Path, typer.Argument(help="What `run --record` wrote.")],
    program: ProgramOption = None,
    config: ConfigOption = None,
) -> None:
    """Run a recorded program again, offline, from the recorded answers.

    A program that has changed is told the first host call at which it does something else.

    Example: pie-trio replay run.journal --program my.py
    """
    leave_with(lambda: _replay(journal, program, config))


async def _replay(path: Path, program: str | None, config: Path | None) -> ExitCode:
    output = Output.of_process()
    limits = resolve(config, Flags()).settings.limits
    journal = read_journal(path, limits)
    if journal.torn:
        output.say(f"the last line of {path} is cut off and left out")
    home = Home.default()
    record = find_program(ProgramStore(home.programs, limits), program or journal.head.program)
    transcript = Transcript(output, trio.current_time, trio.current_time())

    def show(event: OutputEvent) -> None:
        transcript.show(event.kind, event.value, event.data)

    with trio.CancelScope() as scope:
        async with open_interrupts(scope.cancel):
            with open_steps(output) as steps:
                verdict = await replay_journal(journal, record, home, limits, steps.say, show)
            return _tell(output, record.identity, verdict)
    return ExitCode.INTERRUPTED


def _tell(output: Output, program: str, verdict: Verdict) -> ExitCode:
    if verdict.changed:
        output.say(verdict.changed)
    calls = f"{verdict.calls} host calls agreed"
    match verdict.agreement:
        case Agreement.SAME:
            output.say(f"{calls} · {verdict.text} · the same as recorded")
            return ExitCode.OK
        case Agreement.CUT:
            output.complain(f"{program}: {calls}, but {verdict.text}: how it went on is not known")
        case Agreement.DIVERGED:
            output.complain(f"{program}: {calls}, then: {verdict.text}")
    return ExitCode.CHECK_FAILED
