"""Recorded instances for tests: a run in a world, its journal in a file, that file's replay."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from pie_trio.actors.instance import Instance
from pie_trio.config import Limits
from pie_trio.events import Event
from pie_trio.home import Home
from pie_trio.journal import Head, JournalWriter, read_journal
from pie_trio.messages import OutputEvent
from pie_trio.replaying import Verdict, replay
from pie_trio.services.program_store import ProgramStore
from tests.support.kit import INFERLETS
from tests.world import World, open_world, read_all


@attrs.frozen
class Recorded:
    """One journal, and what its instance told its client."""

    path: Path
    outputs: list[OutputEvent]
    events: list[Event]


def write_journal(path: Path, events: Sequence[Event], limits: Limits | None = None) -> str | None:
    """Returns the writer's problem."""
    with path.open("wb", buffering=0) as stream:
        writer = JournalWriter(stream, limits or Limits())
        writer.begin(Head("0", "a-program", 0.0, 0.0))
        for event in events:
            writer(event)
    return writer.problem


async def record(
    folder: Path, program: str | Path, *arguments: str, receives: Sequence[str] = ()
) -> Recorded:
    """Runs a program to its end."""
    async with open_world(folder / "home", records=True) as world:
        instance = await world.launch(program, *arguments)
        for line in receives:
            instance.inbox.deliver(line)
        outputs = await read_all(instance)
    return kept(folder, world, instance, outputs)


def kept(folder: Path, world: World, instance: Instance, outputs: list[OutputEvent]) -> Recorded:
    path = folder / f"{instance.id}.journal"
    assert write_journal(path, world.events) is None
    return Recorded(path, outputs, list(world.events))


async def replayed(
    path: Path, program: str | Path, limits: Limits | None = None
) -> tuple[Verdict, list[OutputEvent]]:
    limits = limits or Limits()
    home = Home.default()
    store = ProgramStore(home.programs, limits)
    record = store.from_file(program) if isinstance(program, Path) else store.find(program)
    assert record is not None, f"there is no program {program}"
    outputs: list[OutputEvent] = []
    journal = read_journal(path, limits)
    verdict = await replay(journal, record, home, limits, lambda _line: None, outputs.append)
    return verdict, outputs


def first_run(program: str) -> dict[str, Any]:
    """The first of the runs that a shipped program's `expected.json` describes."""
    runs = json.loads((INFERLETS / program / "expected.json").read_text("utf-8"))
    return dict(runs[0])


def joined(outputs: Sequence[OutputEvent]) -> list[tuple[str, str, bytes]]:
    """Outputs with neighbours of one stream put together: pieces are cut where it suits."""
    result: list[tuple[str, str, bytes]] = []
    for event in outputs:
        if result and event.kind in ("stdout", "stderr") and result[-1][0] == event.kind:
            result[-1] = (event.kind, result[-1][1] + event.value, b"")
        else:
            result.append((event.kind, event.value, event.data))
    return result
