"""`pie-trio bench`: what the product claims about its speed, measured on this machine.

The measurements themselves live in the package `benchmarks`; this is their front door. It ends with
a code of its own when a bar does not hold, so that a script can tell that from a crash.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from pie_trio.cli.exit_codes import ExitCode

app = typer.Typer(no_args_is_help=True, help="Measure this machine's engine beside others.")

JsonOption = Annotated[
    Path | None, typer.Option("--json", help="Write raw samples, configurations and bars there.")
]


@app.callback()
def _bench() -> None:
    """Measure this machine's engine beside others."""


@app.command("engine")
def engine(
    setup: Annotated[
        bool, typer.Option("--setup", help="Install the peers, each in an environment, and end.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="One round of the main cases: under 3 minutes.")
    ] = False,
    accuracy: Annotated[
        bool, typer.Option("--accuracy", help="Measure how exact the numeric modes are, instead.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="This engine only; may be repeated.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="A stored model's name.")] = None,
    rounds: Annotated[int | None, typer.Option("--rounds", help="How often each case.")] = None,
    json: JsonOption = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw it as a PNG.")] = None,
) -> None:
    """Our engine, bare and served, beside the engines one would pick instead.

    Prints Markdown. Figures are comparable within one run only.

    Example: pie-trio bench engine --setup && pie-trio bench engine --json engine.json
    """
    flags = {"--setup": setup, "--quick": quick}
    values = {"--model": model, "--rounds": rounds, "--json": json, "--plot": plot}
    _measure("benchmarks.accuracy" if accuracy else "benchmarks.engine", flags, only, values)


@app.command("paper")
def paper(
    scale: Annotated[
        float | None, typer.Option("--scale", help="So many instances and tokens (default: 1).")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="Sections, as in fig6,table4; may be repeated."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="One round of everything, smaller: about 6 minutes.")
    ] = False,
    pretend: Annotated[
        bool, typer.Option("--pretend", help="A worker that only sleeps: no real figures.")
    ] = False,
    model: Annotated[str | None, typer.Option("--model", help="A stored model's name.")] = None,
    rounds: Annotated[int | None, typer.Option("--rounds", help="How often each case.")] = None,
    json: JsonOption = None,
    plots: Annotated[
        Path | None, typer.Option("--plots", help="Draw the figures as PNG files there.")
    ] = None,
) -> None:
    """The evaluation of the original system's paper, its figures and tables, on this machine.

    Agents and techniques as inferlets beside the same applications at their client. Sections that
    are not measured now are kept from the JSON file of an earlier run.

    Example: pie-trio bench paper --only fig6,table4 --json paper.json --plots figures
    """
    flags = {"--quick": quick, "--pretend": pretend}
    values = {"--scale": scale, "--model": model, "--rounds": rounds}
    _measure("benchmarks.paper.run", flags, only, {**values, "--json": json, "--plots": plots})


@app.command("soak")
def soak(
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer kills, 64 clients for 15 seconds.")
    ] = False,
    pretend: Annotated[
        bool, typer.Option("--pretend", help="Leave out what needs the default model.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="workers, servers, clients; may be repeated.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Kill real workers and servers, let clients go, and look at what is left.

    Example: pie-trio bench soak --quick --json soak.json
    """
    _measure("benchmarks.soak", {"--quick": quick, "--pretend": pretend}, only, {"--json": json})


def _measure(
    module: str,
    flags: Mapping[str, bool],
    only: Sequence[str] | None,
    values: Mapping[str, object],
) -> NoReturn:
    """Loaded by name: the command line must not load what a benchmark needs, such as torch."""
    arguments = [name for name, is_set in flags.items() if is_set]
    for each in only or ():
        arguments += ["--only", each]
    for name, value in values.items():
        arguments += [] if value is None else [name, str(value)]
    raise typer.Exit(ExitCode(importlib.import_module(module).main(arguments)))
