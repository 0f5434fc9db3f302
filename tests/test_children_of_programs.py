"""Children of real guests: Python programs start C programs and themselves, by the kit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pie_trio.events import InstanceFinished
from tests.test_kill_sweeps import Sweep
from tests.world import open_world, read_all

FAMILY = """
import inferlet
from inferlet import send, start_child, task_group

async def ask(text):
    async with start_child("echo", "--text", text) as echo:
        heard = [piece async for piece in echo]
        return heard + [await echo.outcome()]

async def main(args):
    if args:
        print("a child of", args[0])
        inferlet.Context(inferlet.get_model()).fill(args[0])
        return await inferlet.receive()
    found = {}
    async with task_group() as group:
        branches = [group.start(ask(text)) for text in ("one", "two")]
    found["asked"] = [branch.result() for branch in branches]
    async with start_child("", "itself") as child:
        child.send("hello")
        found["own"] = await child.outcome()
    for name, start in (
        ("unknown", lambda: start_child("nobody")),
        ("late", lambda: start_child("echo", deadline=0.02)),
        ("wrong", lambda: start_child("echo", "--nonsense")),
    ):
        try:
            async with start() as child:
                await child.outcome()
        except (inferlet.Refused, ValueError) as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found
"""
FAILING_GROUP = """
from inferlet import start_child, task_group

async def wait_for_ever():
    async with start_child("echo") as child:
        await child.outcome()

async def fail():
    raise LookupError("a branch")

async def main():
    try:
        async with task_group() as group:
            group.start(wait_for_ever())
            group.start(fail())
    except LookupError as error:
        return str(error)
"""
LATE = """
from inferlet.child import Child

class Process:
    # Says its last words and ends behind so many calls of its parent's.
    def __init__(self, calls):
        self.left, self.words = calls, ["last words"]

    def receive(self):
        found = self.words.pop() if self.left <= 0 and self.words else None
        self.left -= 1
        return found

    def outcome(self):
        found = "over" if self.left <= 0 else None
        self.left -= 1
        return found

async def heard_of(calls):
    return [piece async for piece in Child(Process(calls))]

async def main():
    return [await heard_of(calls) for calls in (0, 1)]
"""
ONE_CHILD = """
import inferlet

async def main(args):
    context = inferlet.Context(inferlet.get_model())
    context.fill("a few words for a page")
    words = ("--prompt", "a", "--max-tokens", "3")
    async with inferlet.start_child("text-completion", *words) as child:
        await context.decode_step()
        return await child.outcome()
"""


@pytest.fixture
def family(tmp_path: Path) -> Path:
    program = tmp_path / "family.py"
    program.write_text(FAMILY)
    return program


async def test_a_program_hears_its_children_and_how_they_ended(
    family: Path, tmp_path: Path
) -> None:
    async with open_world(tmp_path / "home", records=True) as world:
        events = await read_all(await world.launch(family))
        assert events[-1].kind == "return", events[-1]
        assert {event.kind for event in events[:-1]} == {"stdout"}
        assert "".join(event.value for event in events[:-1]) == "a child of itself\n"
        found = json.loads(events[-1].value)
        assert found.pop("wrong").startswith("ChildFailed: bad argument, see --help: --nonsense")
        assert found == {
            "asked": [["one", "one"], ["two", "two"]],
            "own": "hello",
            "unknown": "ValueError: child.start: there is no program 'nobody'",
            "late": "Cancelled: its deadline has passed",
        }


async def test_what_a_child_says_last_is_heard_whenever_it_ends(tmp_path: Path) -> None:
    """Between any two calls of its parent's."""
    program = tmp_path / "late.py"
    program.write_text(LATE)
    async with open_world(tmp_path / "home") as world:
        assert json.loads((await world.run(program)).value or "") == [["last words"]] * 2


async def test_a_branch_that_fails_ends_the_child_of_its_sibling(tmp_path: Path) -> None:
    program = tmp_path / "failing.py"
    program.write_text(FAILING_GROUP)
    async with open_world(tmp_path / "home") as world:
        assert (await world.run(program)).value == "a branch"
        ends = [event for event in world.events if isinstance(event, InstanceFinished)]
        assert [(end.outcome, end.reason) for end in ends] == [
            ("Terminated", "its parent has enough"),
            ("return", ""),
        ]


async def test_a_parent_killed_at_any_step_takes_its_child_along(tmp_path: Path) -> None:
    """Every page is back at the very moment at which a client sees the parent's death."""
    program = tmp_path / "one.py"
    program.write_text(ONE_CHILD)
    async with open_world(tmp_path / "home") as world:
        assert (await world.run(program)).error is None
        sweep = Sweep(world)
        acted, step, end = True, 0, ""
        while acted:
            step += 1
            acted, end = await sweep.kill_at(step, program)
            assert sweep.books is not None
            assert sweep.books.balanced
            assert sweep.books.owned == 0
            assert not [i for i in world.engine.instances() if not i.is_finished and i.depth]
        assert end.startswith("return")
        assert step > 15, "the sweep reaches all of the parent's life"
