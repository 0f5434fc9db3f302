"""`pie-trio config init|show`: the configuration file as it could be and as it counts.

It writes a file only where none is, and only on `init`. What it shows is what `serve` would use.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer

from pie_trio.cli.exit_codes import Usage
from pie_trio.cli.options import ConfigOption, Flags, config_path, resolve, usual_config_path
from pie_trio.cli.output import Output
from pie_trio.settings_file import ConfigFile, dump_settings

app = typer.Typer(no_args_is_help=True, help="Write or show the configuration.")

HEADER = """\
# Configuration of pie-trio. Every key is here with its default, switched off; take away the # to
# change one. A flag outranks the environment, which outranks this file.
"""


@app.command()
def init(
    path: Annotated[Path | None, typer.Argument(help="Where; the usual place if left out.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a configuration file with every key and its default.

    Example: pie-trio config init ./pie-trio.toml
    """
    target = path or usual_config_path()
    if target.exists() and not force:
        raise Usage(f"{target} is there already; --force replaces it")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(template(), "utf-8")
    Output.of_process().line(str(target))


@app.command()
def show(
    config: ConfigOption = None,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value is from.")] = False,
) -> None:
    """Show the settings that count, one `key = value` a line.

    Example: pie-trio config show --origin
    """
    loaded = resolve(config, Flags())
    output = Output.of_process()
    for key, value in dump_settings(loaded.file):
        source = f"  # {loaded.origins.get(key, 'default')}" if origin else ""
        output.line(f"{key} = {value}{source}")
    if origin:
        output.say(f"file: {config_path(config) or f'none (looked for {usual_config_path()})'}")


def template() -> str:
    """The defaults as a file in which every key is a comment."""
    lines = [HEADER]
    rows = [(key.rpartition("."), value) for key, value in dump_settings(ConfigFile())]
    for table, group in groupby(rows, key=lambda row: row[0][0]):
        lines.append(_heading(table))
        lines.extend(f"# {name} = {value}" for (_, _, name), value in group if value != "none")
        lines.append("")
    return "\n".join(lines)


def _heading(table: str) -> str:
    """`model[0]` is written `[[model]]`, and is a comment: otherwise it would be an empty model."""
    name, is_list, _ = table.partition("[")
    return f"# [[{name}]]" if is_list else f"[{name}]"
