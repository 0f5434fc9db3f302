"""Recorded programs run again offline to the same outputs, and say where they do not."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pie_trio.config import Limits
from pie_trio.errors import BadJournal, WorkerLost
from pie_trio.events import Event, HostCalled, InstanceFinished
from pie_trio.journal import read_journal
from pie_trio.replaying import Agreement
from pie_trio.testing.inline_worker import WorkerScript
from pie_trio.wasm.fiber import STANDING_BACK_SECONDS
from tests.support.journals import (
    Recorded,
    first_run,
    joined,
    kept,
    record,
    replayed,
    write_journal,
)
from tests.support.kit import INFERLETS
from tests.world import open_world, read_all

PROGRAMS = sorted(path.parent.name for path in INFERLETS.glob("*/Pie.toml"))

TALKER = """
import random, sys, time
import inferlet

async def main(args):
    print("to stdout: é")
    print("to stderr", file=sys.stderr)
    inferlet.send(f"{random.random()} {time.time()} {time.monotonic()}")
    inferlet.send(f"{inferlet.get_instance_id()} {args}")
    return WORD
"""

WAITER = """
import inferlet

async def main(args):
    inferlet.send("waiting")
    await inferlet.receive()
"""


def program(folder: Path, source: str) -> Path:
    path = folder / "program.py"
    path.write_text(source, "utf-8")
    return path


def calls_of(recorded: Recorded) -> list[HostCalled]:
    """Those of the instance that was launched, not of its children."""
    calls = [event for event in recorded.events if isinstance(event, HostCalled)]
    return [call for call in calls if call.instance == calls[0].instance]


@pytest.mark.parametrize("name", PROGRAMS)
async def test_every_shipped_program_replays_to_the_same_output(name: str, tmp_path: Path) -> None:
    run = first_run(name)
    recorded = await record(tmp_path, name, *run["arguments"], receives=run.get("receives", ()))
    verdict, outputs = await replayed(recorded.path, name)
    assert verdict.agreement is Agreement.SAME, verdict.text
    assert verdict.calls == len(calls_of(recorded))
    assert joined(outputs) == joined(recorded.outputs)


async def test_chance_clocks_and_both_streams_come_back_as_they_were(tmp_path: Path) -> None:
    path = program(tmp_path, TALKER.replace("WORD", "'done'"))
    recorded = await record(tmp_path, path, "an argument")
    verdict, outputs = await replayed(recorded.path, path)
    assert verdict.agreement is Agreement.SAME, verdict.text
    assert joined(outputs) == joined(recorded.outputs)
    assert {"stdout", "stderr", "message", "return"} <= {kind for kind, _, _ in joined(outputs)}


async def test_a_changed_program_is_told_the_first_call_that_differs(tmp_path: Path) -> None:
    path = program(tmp_path, TALKER.replace("WORD", "'one'"))
    recorded = await record(tmp_path, path)
    differing = next(call for call in calls_of(recorded) if call.function.endswith("#set-return"))
    program(tmp_path, TALKER.replace("WORD", "'two'"))
    verdict, _ = await replayed(recorded.path, path)
    assert verdict.agreement is Agreement.DIVERGED
    assert verdict.calls == differing.number - 1
    assert verdict.changed == "the program has changed since it was recorded"
    assert verdict.text == (
        f'host call {differing.number}: recorded: inferlet:core/runtime#set-return("one"); '
        'now: inferlet:core/runtime#set-return("two")'
    )


async def test_a_program_that_stops_early_or_goes_on_has_diverged(tmp_path: Path) -> None:
    short, long = "inferlet.send('a')", "inferlet.send('a'); inferlet.send('b')"
    text = "import inferlet\n\nasync def main(args):\n    {}\n"
    for before, after, told in ((short, long, "now: "), (long, short, "recorded: ")):
        recorded = await record(tmp_path, program(tmp_path, text.format(before)))
        verdict, _ = await replayed(recorded.path, program(tmp_path, text.format(after)))
        assert verdict.agreement is Agreement.DIVERGED
        assert f'{told}inferlet:core/message#send("b")' in verdict.text


async def test_another_program_diverges_where_its_calls_differ(tmp_path: Path) -> None:
    recorded = await record(tmp_path, "kvs")
    verdict, _ = await replayed(recorded.path, "helloworld")
    assert (verdict.agreement, verdict.calls) == (Agreement.DIVERGED, 1), verdict.text


async def test_an_instance_that_was_ended_while_it_waited_ends_again_the_same_way(
    tmp_path: Path,
) -> None:
    path = program(tmp_path, WAITER)
    async with open_world(tmp_path / "home", records=True) as world:
        instance = await world.launch(path)
        reader = instance.outlet.attach()
        outputs = await reader.next_events()
        await wait_all_tasks_blocked(10 * STANDING_BACK_SECONDS)  # no slice of it is left either
        instance.terminate("enough")
        outputs += await reader.next_events()
        await instance.ended.wait()
    recorded = kept(tmp_path, world, instance, outputs)
    assert calls_of(recorded)[-1].error_kind == "Cancelled"
    verdict, again = await replayed(recorded.path, path)
    assert (verdict.agreement, verdict.text) == (Agreement.SAME, "ended with Terminated: enough")
    assert joined(again) == joined(recorded.outputs)


async def test_a_lost_worker_is_part_of_the_recording(tmp_path: Path) -> None:
    script = WorkerScript(dies_before_batch=3)
    async with open_world(
        tmp_path / "home", records=True, script=script, checks_books=False
    ) as world:
        instance = await world.launch("text-completion", "--prompt", "hello")
        outputs = await read_all(instance)
    recorded = kept(tmp_path, world, instance, outputs)
    assert recorded.outputs[-1].kind == "error"
    verdict, again = await replayed(recorded.path, "text-completion")
    assert verdict.agreement is Agreement.SAME, verdict.text
    assert WorkerLost.__name__ in verdict.text
    assert joined(again) == joined(recorded.outputs)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("raise ValueError('broken')", "broken"),
        ("import sys; sys.exit(3)", "3"),
        ("inferlet.get_model().create_queue().forward_pass().input_tokens([1], [])", "positions"),
    ],
)
async def test_a_fault_of_the_guest_happens_again(tmp_path: Path, body: str, told: str) -> None:
    path = program(tmp_path, f"import inferlet\n\nasync def main(args):\n    {body}\n")
    recorded = await record(tmp_path, path)
    assert told in recorded.outputs[-1].value
    is_of_a_call = "inferlet." in body
    assert (calls_of(recorded)[-1].error_kind == "GuestFault") == is_of_a_call
    verdict, again = await replayed(recorded.path, path)
    assert verdict.agreement is Agreement.SAME, verdict.text
    assert joined(again) == joined(recorded.outputs)


async def test_a_long_argument_is_kept_as_a_digest_and_still_compared(tmp_path: Path) -> None:
    text = "import inferlet\n\nasync def main(args):\n    inferlet.send('x' * 9000 + {!r})\n"
    path = program(tmp_path, text.format("a"))
    recorded = await record(tmp_path, path)
    sent = next(call for call in calls_of(recorded) if call.function.endswith("message#send"))
    assert "digest" in str(sent.arguments)
    assert (await replayed(recorded.path, path))[0].agreement is Agreement.SAME
    verdict, _ = await replayed(recorded.path, program(tmp_path, text.format("b")))
    assert (verdict.agreement, verdict.calls) == (Agreement.DIVERGED, sent.number - 1)


async def test_a_journal_that_reaches_its_bound_ends_there_and_stays_valid(tmp_path: Path) -> None:
    recorded = await record(tmp_path, "kvs")
    size = recorded.path.stat().st_size
    path = tmp_path / "short.journal"
    problem = write_journal(path, recorded.events, Limits(journal_bytes=size // 2))
    assert problem is not None
    assert "journal_bytes" in problem
    verdict, _ = await replayed(path, "kvs")
    assert verdict.agreement is Agreement.CUT
    assert 0 < verdict.calls < len(calls_of(recorded))


async def test_a_journal_cut_anywhere_is_refused_or_agrees_as_far_as_it_goes(
    tmp_path: Path,
) -> None:
    recorded = await record(tmp_path, "helloworld")
    data = recorded.path.read_bytes()
    path = tmp_path / "cut.journal"
    agreements = []
    for length in range(0, len(data), 41):
        path.write_bytes(data[:length])
        with suppress(BadJournal):
            agreements.append((await replayed(path, "helloworld"))[0].agreement)
    assert set(agreements) == {Agreement.CUT}
    assert read_journal(path, Limits()).torn


BAD_REPLIES = ("text", 7, -1, None, True, [], [None], 0.5, 2**70, {"object": [1, "X"]})
BAD_FORMS = ({}, {"bytes": "?"}, {"record": 3}, {"case": []}, {"float": "x"}, {"no": 1, "a": 2})


@pytest.mark.parametrize("reply", [*BAD_REPLIES, *BAD_FORMS])
async def test_made_up_replies_are_refused_or_told_as_what_they_lead_to(
    reply: Any, tmp_path: Path
) -> None:
    recorded = await record(tmp_path, "kvs")
    lines = recorded.path.read_text("utf-8").splitlines()
    places = [place for place, line in enumerate(lines) if '"host_called"' in line]
    path = tmp_path / "forged.journal"
    for place in places:
        forged = {**json.loads(lines[place]), "reply": reply}
        path.write_text("\n".join([*lines[:place], json.dumps(forged), *lines[place + 1 :], ""]))
        try:
            verdict, _ = await replayed(path, "kvs")
        except BadJournal:
            continue
        assert verdict.agreement in Agreement


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda lines: ["[" * 100_000, *lines[1:]], "line 1 is no JSON"),
        (lambda lines: ["\ud800", *lines[1:]], "line 1 is no JSON"),
        (lambda lines: ['{"format": "other"}', *lines[1:]], "line 1 says 'other'"),
        (lambda lines: [lines[0], '{"event": "never"}'], "line 2: no event is named 'never'"),
        (lambda lines: [lines[0], '{"event": "worker_died", "at": 1}'], "line 2: "),
        (lambda lines: [lines[0], '{"event": "worker_died", "at": 1e999}'], "line 2 is no JSON"),
        (lambda lines: [lines[0], "[]"], "line 2 is no JSON object"),
        (lambda lines: lines[:1], "no recording of an instance"),
        (lambda lines: [line for line in lines if '"number":2,' not in line], "call 2 is missing"),
        (
            lambda lines: [
                line.replace('"guest_tables":16', '"guest_tables":99') for line in lines
            ],
            "recorded with guest_tables 99; here it is 16",
        ),
    ],
)
async def test_a_made_up_journal_is_refused_with_what_is_wrong(
    change: Any, told: str, tmp_path: Path
) -> None:
    recorded = await record(tmp_path, "kvs")
    lines = recorded.path.read_text("utf-8").splitlines()
    recorded.path.write_bytes(("\n".join(change(lines)) + "\n").encode(errors="surrogatepass"))
    with pytest.raises(BadJournal, match=told):
        await replayed(recorded.path, "kvs")


async def test_a_full_disk_ends_the_journal_and_nothing_else(tmp_path: Path) -> None:
    recorded = await record(tmp_path, "echo", "--text", "hello")
    assert write_journal(Path("/dev/full"), recorded.events) is not None


async def test_a_program_that_is_not_recorded_calls_the_host_directly(tmp_path: Path) -> None:
    async with open_world(tmp_path / "home") as world:
        await world.run("kvs")
    assert not [event for event in world.events if isinstance(event, HostCalled)]


async def test_two_instances_are_told_apart(tmp_path: Path) -> None:
    events: list[Event] = []
    async with open_world(tmp_path / "home", records=True) as world:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(world.run, "kvs")
        events += world.events
    write_journal(tmp_path / "both.journal", events)
    journal = read_journal(tmp_path / "both.journal", Limits())
    instances = {event.instance for event in events if isinstance(event, InstanceFinished)}
    assert len(instances) == 2
    lengths = {len(journal.calls(instance)) for instance in instances}
    assert lengths == {len(journal.calls(journal.recording().instance))}
