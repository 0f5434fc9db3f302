"""The entry point: joins the verbs, tells errors, and ends with a documented exit code.

Whatever a verb raises ends here: a refusal is one line on stderr, a bug keeps its traceback and
says that it is one. A reader of our output that went away is nobody's error.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated, NoReturn

import typer

from pie_trio import __version__
from pie_trio.cli import bench, client_verbs, config_verbs, model_verbs, sim_verbs
from pie_trio.cli.build import build
from pie_trio.cli.exit_codes import ExitCode, code_of, leaves_of, refusal_in
from pie_trio.cli.new_verb import new
from pie_trio.cli.output import Output, ReaderGoneError
from pie_trio.cli.replay_verb import replay
from pie_trio.cli.run_verb import run as run_program
from pie_trio.cli.serve import serve
from pie_trio.cli.trace_verb import trace
from pie_trio.client import ServerGone

EPILOG = """\
Exit codes: 0 done · 1 the instance ended with an error · 2 wrong usage or configuration ·
3 no server, or it refused · 4 no such program, model or journal · 5 a check did not hold ·
70 a bug of ours · 130 interrupted
"""

app = typer.Typer(
    name="pie-trio",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Serve programs, not prompts: WebAssembly inferlets that control a language model.",
    epilog=EPILOG,
)
app.command("run", no_args_is_help=True)(run_program)
app.command("serve")(serve)
app.command("submit", no_args_is_help=True)(client_verbs.submit)
app.command("list")(client_verbs.list_instances)
app.command("attach", no_args_is_help=True)(client_verbs.attach)
app.command("abort", no_args_is_help=True)(client_verbs.abort)
app.command("ping")(client_verbs.ping)
app.command("replay", no_args_is_help=True)(replay)
app.command("trace", no_args_is_help=True)(trace)
app.command("new", no_args_is_help=True)(new)
app.command("build", no_args_is_help=True)(build)
app.add_typer(model_verbs.app, name="model")
app.add_typer(config_verbs.app, name="config")
app.add_typer(sim_verbs.app, name="sim")
app.add_typer(bench.app, name="bench")


def run() -> NoReturn:
    """What `pie-trio` starts."""
    try:
        app()
    except (Exception, BaseExceptionGroup) as error:
        if any(isinstance(leaf, ReaderGoneError) for leaf in leaves_of(error)):
            _leave_quietly()
        sys.exit(_tell(error))
    sys.exit(ExitCode.OK)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Say the version and end.")] = False,
) -> None:
    if version:
        Output.of_process().line(f"pie-trio {__version__}")
        raise typer.Exit


def _tell(error: BaseException) -> ExitCode:
    output = Output.of_process()
    refusal = refusal_in(error)
    if refusal is not None:
        output.complain(str(refusal))
        if isinstance(refusal, ServerGone):
            output.say("Is a server running there? `pie-trio serve` starts one.")
        return code_of(refusal)
    traceback.print_exception(error)
    output.complain("this is a bug of pie-trio; please report the lines above")
    return ExitCode.BUG


def _leave_quietly() -> NoReturn:
    """Nobody reads stdout any more; nothing is flushed into it when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(ExitCode.OK)
