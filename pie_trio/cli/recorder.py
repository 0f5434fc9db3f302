"""`run --record FILE`: the journal of one run, from the first event to the last.

It owns the file while the run lasts; every line is in it as soon as it was told, so a run that is
killed leaves what happened until then. It never holds the run up by more than one write.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import trio

from pie_trio import __version__
from pie_trio.cli.exit_codes import Usage
from pie_trio.cli.output import Output
from pie_trio.config import Limits
from pie_trio.events import Event
from pie_trio.journal import Head, JournalWriter
from pie_trio.ports import Ports


@contextmanager
def open_recorder(
    path: Path, program: str, ports: Ports, limits: Limits, output: Output
) -> Iterator[Ports]:
    """The same ports, whose events go into the file too. Raises `Usage`."""
    try:
        stream = path.open("wb", buffering=0)
    except OSError as error:
        raise Usage(f"--record: {path} cannot be written: {error}") from error
    with stream:
        journal = JournalWriter(stream, limits)
        named = str(Path(program).resolve()) if Path(program).exists() else program
        journal.begin(Head(__version__, named, time.time(), trio.current_time()))

        def tell(event: Event) -> None:
            ports.emit(event)
            journal(event)

        yield attrs.evolve(ports, emit=tell)
        if journal.problem is not None:
            output.complain(f"the recording is not complete: {journal.problem}")
