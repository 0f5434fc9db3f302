"""Runs that started others, or asked other hosts, replay offline from what was recorded."""

from __future__ import annotations

import json
from pathlib import Path

from pie_trio.events import HostCalled
from pie_trio.replaying import Agreement
from tests.support.journals import joined, kept, record, replayed
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
