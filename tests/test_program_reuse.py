"""What programs save: rows that are computed once, calls that overlap, messages that are not lost.

On a whole engine with a pretend worker, whose batches tell how many rows were computed.
"""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from pie_trio.messages import InstanceEnded
from tests.world import World, open_world, read_all


def returned(end: InstanceEnded) -> Any:
    assert end.error is None, end.error
    return json.loads(end.value)


async def rows_of(world: World, program: str, *arguments: str) -> tuple[int, Any]:
    """How many rows the model computed for a program, and what it returned."""
    before = rows_of_all(world)
    value = returned(await world.run(program, *arguments))
    return rows_of_all(world) - before, value


def rows_of_all(world: World) -> int:
    """A batch of several steps is one sequence here, and each later step a row of it."""
    batches = world.script.batches
    given = sum(len(request.tokens) for batch in batches for request in batch.requests)
    return given + world.script.steps - len(batches)


@pytest.mark.parametrize("program", ["text-completion", "text-completion-py"])
async def test_a_completion_reads_every_token_once(program: str, tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        rows = []
        for count in ("1", "21"):
            before = rows_of_all(world)
            end = await world.run(program, "--prompt", "hello", "--max-tokens", count)
            assert end.error is None
            rows.append(rows_of_all(world) - before)
    assert rows[1] == rows[0] + 20


async def test_wrong_guesses_are_read_once(tmp_path: Path) -> None:
    """Every pass reads its guesses and one token, and nothing that was agreed before."""
    async with open_world(tmp_path) as world:
        before = len(world.script.batches)
        end = await world.run("jacobi-decoding", "--guesses", "3", "--max-tokens", "20")
        passes = returned(end)["passes"]
        sizes = [len(r.tokens) for b in world.script.batches[before:] for r in b.requests]
    assert sizes[-passes:] == [4] * passes


async def test_a_cached_prefix_is_not_read_again_and_changes_no_text(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        first, computed = await rows_of(world, "prefix-caching", "--max-tokens", "8")
        second, imported = await rows_of(world, "prefix-caching", "--max-tokens", "8")
    assert imported["prefix"] == "imported"
    assert imported["text"] == computed["text"]
    assert second == first - imported["tokens"]


async def test_modules_that_are_cached_are_composed_without_reading_them(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        arguments = ("--modules", "style,weather", "--max-tokens", "8")
        first, computed = await rows_of(world, "modular-caching", *arguments)
        second, composed = await rows_of(world, "modular-caching", *arguments)
        _, forgotten = await rows_of(world, "modular-caching", "--modules", "style", "--invalidate")
        _, third = await rows_of(world, "modular-caching", *arguments)
    assert forgotten == {"style": True}
    assert list(third["from_cache"].values()) == [False, True]
    assert third["text"] == computed["text"]
    assert list(composed["from_cache"].values()) == [True, True]
    assert composed["text"] == computed["text"]
    assert second == first - composed["tokens_composed"]


async def test_what_branches_of_a_tree_share_is_read_once(tmp_path: Path) -> None:
    """A tree of fifteen nodes: each one's text is read once, but for a page's last part a fork."""
    async with open_world(tmp_path) as world:
        rows, leaves = await rows_of(world, "prefix-tree", "--max-tokens", "1")
    assert len(leaves) == 8
    root = "You write one short, plain sentence and nothing else."
    apart = sum(len(f"{root} {path} ".encode()) for path in leaves)
    assert rows < 0.6 * apart


async def test_the_stacked_optimisations_each_save_what_they_say(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        arguments = ("--max-tokens", "4", "--delay-ms", "1", "--repeat-document", "1")
        plain, _ = await rows_of(world, "agent-react-bench", *arguments)
        await rows_of(world, "agent-react-bench", *arguments, "--prefix-cache")
        cached, report = await rows_of(world, "agent-react-bench", *arguments, "--prefix-cache")
        _, dropping = await rows_of(world, "agent-react-bench", *arguments, "--drop-tools")
    assert cached == plain - report["tokens_imported"]
    assert report["tokens_imported"] > plain / 2
    assert dropping["pages_dropped"] > 10


@pytest.mark.parametrize("order", list(permutations(range(4))))
async def test_no_message_of_the_swarm_is_lost_however_its_members_start(
    order: tuple[int, ...], tmp_path: Path
) -> None:
    roles = ("concept", "plot", "characters", "dialogue")
    async with open_world(tmp_path) as world:
        members = {}
        for place in order:
            more = ("--idea", "a lighthouse") if place == 0 else ()
            members[place] = await world.launch(
                "agent-swarm", "--role", roles[place], "--max-tokens", "4", *more
            )
        for place in range(4):
            await read_all(members[place])
            assert (await members[place].ended.answer()).error is None


@pytest.mark.parametrize(
    "code",
    [
        "().__class__.__base__.__subclasses__()",
        "while True: pass",
        "import os",
        "lambda: 1",
        "2 ** 100 ** 100",
        "1 << 10000000000",
        "x = 9\nfor i in range(99):\n x = x * x",
        "x = [0] * 10000000000",
        "(" * 500 + ")" * 500,
        "print('\\ud800' * 999)",
        "[x for x in range(9)]",
        "def f(): pass",
        "open('/etc/passwd')",
        "for a in range(99999):\n for b in range(99999):\n  print(1)",
    ],
)
async def test_code_of_the_model_cannot_leave_its_sandbox(code: str, tmp_path: Path) -> None:
    """Whatever it tries is told as the result, or its output is cut; the program goes on."""
    async with open_world(tmp_path) as world:
        arguments = ("--turns", "1", "--max-tokens", "4", "--seconds", "0.3", "--code", code)
        end = await world.run("agent-codeact", *arguments)
    (result,) = returned(end)["results"]
    assert "Error" in result or len(result) == 500


async def test_code_that_is_allowed_runs(tmp_path: Path) -> None:
    code = "total = 0\nfor n in range(5):\n    if n % 2:\n        total += n * 10\nprint(total)"
    async with open_world(tmp_path) as world:
        end = await world.run("agent-codeact", "--turns", "1", "--max-tokens", "4", "--code", code)
    assert returned(end)["results"] == ["40"]
