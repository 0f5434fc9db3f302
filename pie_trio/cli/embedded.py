"""An engine inside the command: what `run` without a server and `serve` have in common.

It owns the ports of that engine: the real clock, chance drawn once unless a seed was given, the log
on stderr. Leaving the block ends every instance and its workers before the command ends.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path

import trio

from pie_trio.cli.exit_codes import Missing
from pie_trio.cli.fresh_build import build_if_missing
from pie_trio.cli.output import Output
from pie_trio.config import Settings
from pie_trio.log import EventLog, as_console_line, as_json_line
from pie_trio.ports import Ports, RandomStreams
from pie_trio.services.program_record import MANIFEST_NAME
from pie_trio.services.program_store import ProgramRecord, ProgramStore

SEED_BITS = 63
PROGRAM_SUFFIXES = (".py", ".wasm")


def open_ports(settings: Settings, output: Output, least: str) -> Ports:
    """Called inside Trio: the log needs its clock."""
    seed = secrets.randbits(SEED_BITS) if settings.seed is None else settings.seed
    streams = RandomStreams(seed)
    if settings.log == "off":
        return Ports(streams)
    form = as_json_line if settings.log == "json" else as_console_line
    log = EventLog(output.stderr, form, time.time(), trio.current_time(), least)
    return Ports(streams, emit=log)


def find_program(
    store: ProgramStore, text: str, say: Callable[[str], None] = lambda _line: None
) -> ProgramRecord:
    """A file or folder if the text looks like one or is one, otherwise a name. Raises `Missing`."""
    path = Path(text)
    if path.suffix in PROGRAM_SUFFIXES or "/" in text or (path / MANIFEST_NAME).is_file():
        if not path.exists():
            raise Missing(f"{text} does not exist")
        if path.is_dir():
            build_if_missing(path, say)
        return store.from_file(path)
    record = store.find(text)
    if record is None:
        names = ", ".join(sorted({record.name for record in store.list()})) or "none"
        raise Missing(f"there is no program {text!r}; known: {names}; or name a .py or .wasm file")
    return record
