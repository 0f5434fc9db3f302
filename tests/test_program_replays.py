"""Runs that started others, or asked other hosts, replay offline from what was recorded."""

from __future__ import annotations

import json
from base64 import b64encode
from collections import deque
from pathlib import Path

import pytest

from pie_trio.errors import BadJournal
from pie_trio.events import HostCalled
from pie_trio.guest_output import WRITING
from pie_trio.messages import OutputEvent
from pie_trio.replaying import Agreement, FamilyOutput
from tests.support.journals import Recorded, joined, kept, record, replayed
from tests.support.web_host import answer, open_web_host
from tests.world import open_world, read_all

FAMILY = """
from inferlet import Refused, get_instance_id, send, start_child

async def main(args):
    if args:
        return f"{get_instance_id()} was told {args[0]}"
    found = []
    for program, *words in (("", "a word"), ("echo", "--text", "hello"), ("echo", "--bad")):
        async with start_child(program, *words) as child:
            heard = [piece async for piece in child]
            try:
                found.append([heard, await child.outcome()])
            except Refused as refused:
                found.append([heard, str(refused)])
    send(f"{len(found)} children\\n")
    return found
"""
PRINTING = """
import sys
from inferlet import send, start_child
from wit_world.imports import inferlet_core_common as common
from wit_world.imports import message

async def main(args):
    print(f"{len(args)} begins: \u00fc")
    if args:
        print("x" * 20_000)
        print("not well", file=sys.stderr, flush=True)
        message.send_blob(common.Blob(bytes(10_000)))
    for name in ("one", "two") if len(args) < 2 else ():
        async with start_child("", *args, name) as child:
            assert await child.receive() == "WORD"
            print(await child.outcome())
        print(f"{name} is over", flush=True)
    send("WORD")
    print(f"{args} ends", flush=True)
    return f"{args} has returned"
"""
ASKING = """
from inferlet import FetchFailed, fetch

async def main(args):
    there = await fetch(args[0], "POST", body=b"a question", headers={"X-Asked": "yes"})
    try:
        await fetch(args[1])
    except FetchFailed as failed:
        return [there.status, there.text, there.header("x-more"), bool(str(failed))]
"""


async def test_what_children_said_and_returned_comes_from_the_recording(tmp_path: Path) -> None:
    path = tmp_path / "family.py"
    path.write_text(FAMILY)
    recorded = await record(tmp_path, path)
    (own, echo, bad) = json.loads(recorded.outputs[-1].value)
    assert own[1].endswith("was told a word")
    assert echo == [["hello"], "hello"]
    assert "--bad" in bad[1]
    instances = {event.instance for event in recorded.events if isinstance(event, HostCalled)}
    assert len(instances) == 4, "the children were recorded, too, and are told apart"
    verdict, again = await replayed(recorded.path, path)
    assert verdict.agreement is Agreement.SAME, verdict.text
    assert joined(again) == joined(recorded.outputs)


async def record_printing(tmp_path: Path) -> tuple[Path, Recorded]:
    path = tmp_path / "printing.py"
    path.write_text(PRINTING)
    return path, await record(tmp_path, path)


async def test_what_children_and_theirs_printed_is_shown_where_it_was_printed(
    tmp_path: Path,
) -> None:
    path, recorded = await record_printing(tmp_path)
    printed = joined(recorded.outputs)
    assert sum(text.count("x") for kind, text, _ in printed if kind == "stdout") == 6 * 20_000
    assert [kind for kind, _, _ in printed].count("file") == 6
    assert "['two', 'one'] ends" in str(printed)
    verdict, again = await replayed(recorded.path, path)
    assert verdict.agreement is Agreement.SAME, verdict.text
    assert joined(again) == printed


def test_what_came_behind_a_call_is_not_shown_before_it() -> None:
    shown: list[OutputEvent] = []
    events = [OutputEvent("stdout", text) for text in ("first", "second", "third")]
    family = FamilyOutput(deque(zip((0, 2, 2), events, strict=True)), shown.append)
    family.show_before(2)
    assert shown == events[:1]
    family.show_before(3)
    assert shown == events


async def test_behind_the_call_that_differs_nothing_of_children_is_shown(tmp_path: Path) -> None:
    path, recorded = await record_printing(tmp_path)
    path.write_text(PRINTING.replace("is over", "was over"))
    verdict, again = await replayed(recorded.path, path)
    assert verdict.agreement is Agreement.DIVERGED
    shown = str(joined(again))
    assert "['one'] ends" in shown
    assert "['two'] ends" not in shown


async def test_a_recording_that_stops_within_a_child_shows_what_was_printed_until_then(
    tmp_path: Path,
) -> None:
    path, recorded = await record_printing(tmp_path)
    lines = recorded.path.read_text().splitlines(keepends=True)
    prints = [place for place, line in enumerate(lines) if b64encode(b"x" * 9).decode() in line]
    recorded.path.write_text("".join(lines[: prints[0] + 1]))
    verdict, again = await replayed(recorded.path, path)
    assert verdict.agreement is Agreement.CUT
    assert "xxx" in joined(again)[-1][1]


async def test_who_was_not_started_by_the_program_is_not_shown(tmp_path: Path) -> None:
    path, stranger = tmp_path / "family.py", tmp_path / "stranger.py"
    path.write_text(FAMILY)
    stranger.write_text("def main(args):\n    print('a stranger')\n")
    async with open_world(tmp_path / "home", records=True) as world:
        instance = await world.launch(path)
        other = await world.launch(stranger)
        assert "a stranger" in str(await read_all(other))
        recorded = kept(tmp_path, world, instance, await read_all(instance))
    verdict, again = await replayed(recorded.path, path)
    assert verdict.agreement is Agreement.SAME, verdict.text
    assert joined(again) == joined(recorded.outputs)


@pytest.mark.parametrize("forged", [["text"], [{"object": [1, "X"]}, 7], [{"bytes": "?"}], []])
async def test_a_made_up_print_of_a_child_is_refused_by_its_number(
    forged: list[object], tmp_path: Path
) -> None:
    path, recorded = await record_printing(tmp_path)
    lines = [json.loads(line) for line in recorded.path.read_text().splitlines()]
    own = next(line["instance"] for line in lines if line.get("event") == "recording_started")
    writes = [line for line in lines if line.get("function") in WRITING]
    next(line for line in writes if line["instance"] != own)["arguments"] = forged
    recorded.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(BadJournal, match=r"of a child|stands for no value"):
        await replayed(recorded.path, path)


async def test_a_host_that_was_asked_is_not_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "asking.py"
    path.write_text(ASKING)
    pages = {"/there": answer(b"an answer", X_More="more"), "/gone": b"no answer\r\n\r\n"}
    async with open_web_host(pages) as host:
        allow = (host.entry,)
        async with open_world(tmp_path / "home", records=True, allow=allow) as world:
            instance = await world.launch(path, host.url("/there"), host.url("/gone"))
            recorded = kept(tmp_path, world, instance, await read_all(instance))
        asked = len(host.asked)
        verdict, again = await replayed(recorded.path, path)
        assert len(host.asked) == asked == 2
    assert json.loads(recorded.outputs[-1].value) == [200, "an answer", "more", True]
    assert verdict.agreement is Agreement.SAME, verdict.text
    assert joined(again) == joined(recorded.outputs)
