"""`pie-trio trace`: a journal as a time-line that Perfetto and `chrome://tracing` open.

The output appears whole or not at all. It starts nothing and needs no program.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pie_trio.cli.exit_codes import Usage
from pie_trio.cli.options import ConfigOption, Flags, resolve
from pie_trio.cli.output import Output
from pie_trio.journal import read_journal
from pie_trio.trace_format import chrome_trace


def trace(
    journal: Annotated[Path, typer.Argument(help="What `run --record` wrote.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")],
    config: ConfigOption = None,
) -> None:
    """Write a recorded run as a time-line: https://ui.perfetto.dev opens it.

    Example: pie-trio trace run.journal -o run.json
    """
    found = read_journal(journal, resolve(config, Flags()).settings.limits)
    events = chrome_trace(found.events)
    unfinished = output.with_name(f"{output.name}.unfinished")
    try:
        unfinished.write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}), "utf-8")
        unfinished.replace(output)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise Usage(f"{output} cannot be written: {error}") from error
    Output.of_process().say(f"{len(events)} events in {output}")
