"""`pie:ext/child` over the real engine: a child lives inside its parent, and ends before it can."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pie_trio.config import Limits
from pie_trio.errors import BadRequest, GuestFault
from pie_trio.events import InstanceFinished, InstanceLaunched
from pie_trio.messages import OutputEvent
from pie_trio.testing.guests import Script, ScriptHost
from pie_trio.wasm.codec import Case, Err
from pie_trio.wasm.host.message import MESSAGE
from pie_trio.wasm.wasi.cli import STDOUT
from pie_trio.wasm.wasi.streams import STREAMS
from tests.family import method, open_family, outcome, run_child, start
from tests.world import World, read_all

HELD = 3  # pages of a child


async def works(guest: ScriptHost) -> str:
    """A child that generates, on pages of its own."""
    pages = await guest.allocate(HELD)
    return str(await guest.generate(pages, [50, 51], 3))


async def talks(guest: ScriptHost) -> str:
    """Says so much to its parent, prints, and waits for a word."""
    stdout = await guest.call(STDOUT["get-stdout"])
    for number in range(guest.number(0, 1)):
        await guest.call(MESSAGE["send"], f"message {number}")
    await guest.call(STREAMS["[method]output-stream.blocking-write-and-flush"], stdout, b"printed")
    receipt = await guest.call(MESSAGE["receive"])
    with closing(receipt):
        await receipt.ticket.wait()
        return f"heard {receipt.read()}"


async def holds(guest: ScriptHost) -> str:
    """Holds pages for ever."""
    await guest.allocate(HELD)
    await trio.sleep_forever()
    return "never"


async def traps(guest: ScriptHost) -> str:
    await guest.allocate(HELD)
    raise GuestFault("a trap")


PROGRAMS: dict[str, Script] = {"works": works, "talks": talks, "holds": holds, "traps": traps}


def kinds(world: World) -> list[tuple[str, str, str]]:
    """Who ended how, in order."""
    return [
        (event.program.partition("@")[0], event.outcome, event.reason)
        for event in world.events
        if isinstance(event, InstanceFinished)
    ]


async def told(root: Path, parent: Script, limits: Limits | None = None) -> str:
    """What a parent returns; every instance that was launched has ended once."""
    async with open_family(root, {"parent": parent, **PROGRAMS}, limits) as world:
        end = await world.run("sim-parent")
        assert end.error is None, end.error
        launched = [e.instance for e in world.events if isinstance(e, InstanceLaunched)]
        finished = [e.instance for e in world.events if isinstance(e, InstanceFinished)]
        assert sorted(launched) == sorted(finished)
        assert finished[-1] == end.instance, "the parent ends last"
        assert [instance.id for instance in world.engine.instances()] == [end.instance]
    return end.value


async def test_what_a_child_returns_is_its_outcome_and_its_pages_are_back(tmp_path: Path) -> None:
    async def parent(guest: ScriptHost) -> str:
        own = await guest.allocate(2)
        alone = await guest.generate(own, [50, 51], 3)
        found = await run_child(guest, "sim-works")
        held = [
            (generation.manager.pools[kind].books().owned)
            for generation in [guest.queue.model.model.generation]  # type: ignore[attr-defined]
            for kind in generation.manager.pools
        ]
        return f"{found == str(alone)} {held}"

    assert await told(tmp_path, parent) == "True [2, 0]"


async def test_messages_go_to_the_parent_and_prints_to_its_client(tmp_path: Path) -> None:
    async def parent(guest: ScriptHost) -> str:
        process = await start(guest, "sim-talks", "2")
        with closing(process):
            pollable = await method(guest, "pollable", process)
            heard: list[str] = []
            while len(heard) < 2:
                await pollable.wait()
                heard.append(await method(guest, "receive", process))
            assert await method(guest, "receive", process) is None
            assert await method(guest, "send", process, "a word") is None
            return f"{heard} {await outcome(guest, process)}"

    async with open_family(tmp_path, {"parent": parent, **PROGRAMS}) as world:
        instance = await world.launch("sim-parent")
        assert await read_all(instance) == [
            OutputEvent("stdout", "printed"),
            OutputEvent("return", "['message 0', 'message 1'] heard a word"),
        ]


async def test_messages_outlive_the_child_that_sent_them(tmp_path: Path) -> None:
    async def brief(guest: ScriptHost) -> str:
        await guest.call(MESSAGE["send"], "the last word")
        return "done"

    async def parent(guest: ScriptHost) -> str:
        process = await start(guest, "sim-brief")
        with closing(process):
            await process.child.ended.wait()
            return f"{await method(guest, 'receive', process)}, {await outcome(guest, process)}"

    async with open_family(tmp_path, {"parent": parent, "brief": brief}) as world:
        assert (await world.run("sim-parent")).value == "the last word, done"


async def test_a_child_that_is_let_go_of_ends(tmp_path: Path) -> None:
    async def parent(guest: ScriptHost) -> str:
        process = await start(guest, "sim-holds")
        await wait_all_tasks_blocked()
        process.close()
        await process.child.ended.wait()
        return str(process.child.failure)

    assert await told(tmp_path, parent) == "its parent let go of it"


async def test_a_parent_that_returns_takes_its_children_along(tmp_path: Path) -> None:
    async def parent(guest: ScriptHost) -> str:
        for _ in range(2):
            await start(guest, "sim-holds")
        await wait_all_tasks_blocked()
        return "gone"

    async with open_family(tmp_path, {"parent": parent, **PROGRAMS}) as world:
        assert (await world.run("sim-parent")).value == "gone"
        child = ("sim-holds", "Terminated", "its parent has ended")
        assert kinds(world) == [child, child, ("sim-parent", "return", "")]


async def test_a_parent_that_is_ended_takes_children_and_grandchildren_along(
    tmp_path: Path,
) -> None:
    async def middle(guest: ScriptHost) -> str:
        return str(await run_child(guest, "sim-holds"))

    async def parent(guest: ScriptHost) -> str:
        return str(await run_child(guest, "sim-middle"))

    programs = {"parent": parent, "middle": middle, **PROGRAMS}
    async with open_family(tmp_path, programs) as world:
        instance = await world.launch("sim-parent")
        await wait_all_tasks_blocked()
        assert world.books().owned == HELD
        instance.terminate()
        assert (await instance.ended.answer()).error == "Signal"
        assert world.books().owned == 0
        assert sorted(name for name, _how, _why in kinds(world)[:2]) == ["sim-holds", "sim-middle"]
        assert kinds(world)[2] == ("sim-parent", "Terminated", "Signal")


async def test_a_child_ends_at_its_deadline(tmp_path: Path, autojump_clock: object) -> None:
    async def parent(guest: ScriptHost) -> str:
        began = trio.current_time()
        process = await start(guest, "sim-holds", deadline_ms=250)
        with closing(process):
            found = await outcome(guest, process)
        assert round(trio.current_time() - began, 3) == 0.25
        assert found == Err(Case("cancelled", "its deadline has passed"))
        return "in time"

    assert await told(tmp_path, parent) == "in time"


async def test_a_child_that_is_cancelled_tells_the_reason(tmp_path: Path) -> None:
    async def parent(guest: ScriptHost) -> str:
        process = await start(guest, "sim-holds")
        with closing(process):
            assert await method(guest, "outcome", process) is None
            await method(guest, "cancel", process, "enough")
            assert await method(guest, "outcome", process) is None, "its pages are not back yet"
            assert await outcome(guest, process) == Err(Case("cancelled", "enough"))
            answer = await method(guest, "send", process, "too late")
            return str(answer.payload)

    assert "the child has ended" in await told(tmp_path, parent)


async def test_a_child_that_fails_is_an_outcome_and_its_parent_lives(tmp_path: Path) -> None:
    async def parent(guest: ScriptHost) -> str:
        assert await run_child(guest, "sim-traps") == Err(Case("failed", "a trap"))
        unknown = await run_child(guest, "sim-nobody")
        assert isinstance(unknown, Err)
        return str(unknown.payload)

    assert "there is no program 'sim-nobody'" in await told(tmp_path, parent)


async def test_without_a_name_the_child_is_the_parents_own_program(tmp_path: Path) -> None:
    async def parent(guest: ScriptHost) -> str:
        depth = guest.number(0, 0)
        return f"{depth} {await run_child(guest, '', str(depth + 1)) if depth < 2 else ''}"

    assert await told(tmp_path, parent) == "0 1 2 "


@pytest.mark.parametrize(
    ("limits", "what"),
    [
        (Limits(children_per_instance=2), "children_per_instance"),
        (Limits(children_max=2), "children_max"),
        (Limits(guest_held_bytes=2_200_000, child_mailbox_bytes=500_000), "guest_held_bytes"),
        (Limits(instances_max=3), "instances_max"),
    ],
)
async def test_the_third_child_is_refused_by_the_bound_and_the_first_two_live(
    tmp_path: Path, limits: Limits, what: str
) -> None:
    async def parent(guest: ScriptHost) -> str:
        first, second = [await start(guest, "sim-holds") for _ in range(2)]
        third = await start(guest, "sim-holds")
        assert isinstance(third, Err)
        assert third.payload.tag == "budget-exceeded"
        await wait_all_tasks_blocked()
        assert not first.child.ended.is_filled
        first.close()
        await first.child.ended.wait()
        fourth = await start(guest, "sim-holds")
        assert not isinstance(fourth, Err), "there is room again"
        for process in (second, fourth):
            process.close()
        assert guest.host.held.bytes_held == 0
        return str(third.payload.payload)

    assert what in await told(tmp_path, parent, limits)


async def test_generations_are_bounded(tmp_path: Path) -> None:
    async def parent(guest: ScriptHost) -> str:
        found = await run_child(guest, "")
        return found if isinstance(found, str) else str(found.payload.payload)

    said = await told(tmp_path, parent, Limits(children_depth=2))
    assert said.startswith("children_depth: 2 generations")


async def test_what_the_child_has_not_received_is_bounded(tmp_path: Path) -> None:
    async def parent(guest: ScriptHost) -> str:
        process = await start(guest, "sim-holds")
        with closing(process):
            answers = [await method(guest, "send", process, "x" * 40) for _ in range(4)]
            return str([answer is None for answer in answers])

    limits = Limits(child_mailbox_bytes=100)
    assert await told(tmp_path, parent, limits) == "[True, True, False, False]"


async def test_a_child_waits_while_its_parent_does_not_receive(tmp_path: Path) -> None:
    async def parent(guest: ScriptHost) -> str:
        process = await start(guest, "sim-talks", "4")
        with closing(process):
            await wait_all_tasks_blocked()
            waiting = process.child._instance.outlet.waiting_bytes
            heard = [await method(guest, "receive", process) for _ in range(2)]
            await wait_all_tasks_blocked()
            heard += [await method(guest, "receive", process) for _ in range(2)]
            assert waiting <= 150
            return str(heard)

    said = await told(tmp_path, parent, Limits(child_mailbox_bytes=150))
    assert said == str([f"message {number}" for number in range(4)])


async def test_a_client_may_end_a_child_and_not_listen_to_it(tmp_path: Path) -> None:
    async def parent(guest: ScriptHost) -> str:
        return str(await run_child(guest, "sim-holds"))

    async with open_family(tmp_path, {"parent": parent, **PROGRAMS}) as world:
        instance = await world.launch("sim-parent")
        await wait_all_tasks_blocked()
        (child,) = (each for each in world.engine.instances() if each.depth)
        with pytest.raises(BadRequest, match="somebody else is attached"):
            child.outlet.attach()
        child.terminate()
        assert "Signal" in (await instance.ended.answer()).value
