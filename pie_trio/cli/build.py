"""`pie-trio build`: a program's folder to one file that can be run anywhere.

The output appears whole or not at all. It starts no engine and needs no model; the tools for C are
an extra of this package.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pie_trio.cli.exit_codes import Missing
from pie_trio.cli.output import Output
from pie_trio.cli.progress import open_steps
from pie_trio.services.guest_build.inferlet import build_inferlet


def build(
    folder: Annotated[Path, typer.Argument(help="The program's folder, with its Pie.toml.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")],
) -> None:
    """Build a program: C becomes a component, Python is checked.

    Example: pie-trio build inferlets/text-completion -o text-completion.wasm
    """
    if not folder.is_dir():
        raise Missing(f"{folder} is not a folder")
    with open_steps(Output.of_process()) as steps:
        build_inferlet(folder, output, steps.say)
