"""Programs and the kit in real guests on a whole engine, with a pretend worker.

The pretend worker's tokens are a checksum of what a pass reads through its pages, so text that is
the same twice was computed from the same tokens in the same places.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pie_trio.messages import InstanceEnded
from pie_trio.testing.inline_worker import WorkerScript
from tests.world import World, open_world, read_all


def write(directory: Path, body: str) -> Path:
    """A Python program: the kit imported, `body` as the body of its main."""
    path = directory / "program.py"
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    path.write_text(f"import asyncio\nfrom inferlet import *\n\nasync def main(args):\n{lines}")
    return path


async def run_body(tmp_path: Path, body: str, *arguments: str) -> tuple[InstanceEnded, World]:
    async with open_world(tmp_path / "home") as world:
        return await world.run(write(tmp_path, body), *arguments), world


async def value_of(tmp_path: Path, body: str, *arguments: str) -> Any:
    end, _ = await run_body(tmp_path, body, *arguments)
    assert end.error is None, end.error
    return json.loads(end.value)


async def error_of(tmp_path: Path, body: str) -> str:
    end, _ = await run_body(tmp_path, body)
    assert end.error is not None
    return end.error


@pytest.mark.parametrize("length", range(14, 19))
async def test_a_fork_and_its_parent_do_not_disturb_each_other(length: int, tmp_path: Path) -> None:
    """On every side of a page's end: they take steps in turn, on different tokens, and each writes
    what a context that never forked writes."""
    body = f"""
def filled(last):
    context = Context(get_model())
    context.fill_tokens(list(range(65, 65 + {length})) + last)
    return context

async def steps_in_turn(*contexts):
    rounds = [[await context.decode_step() for context in contexts] for _ in range(20)]
    return [list(tokens) for tokens in zip(*rounds)]

trunk = filled([])
await trunk.flush()
branch = trunk.fork()
trunk.fill_tokens([97])
branch.fill_tokens([98, 99])
forked = await steps_in_turn(trunk, branch)
return [forked, await steps_in_turn(filled([97])) + await steps_in_turn(filled([98, 99]))]
"""
    forked, alone = await value_of(tmp_path, body)
    assert forked == alone


async def test_a_truncated_context_goes_on_as_if_the_rest_had_never_been(tmp_path: Path) -> None:
    body = """
tokens = list(range(65, 100))
one, other = Context(get_model()), Context(get_model())
one.fill_tokens(tokens + [70] * 20)
await one.flush()
one.truncate(len(tokens))
other.fill_tokens(tokens)
return [await each.decode_step() for each in (one, other)]
"""
    one, other = await value_of(tmp_path, body)
    assert one == other


async def test_a_fork_survives_its_parent(tmp_path: Path) -> None:
    body = """
trunk = Context(get_model())
trunk.fill_tokens(range(65, 100))
await trunk.flush()
branch, twin = trunk.fork(), trunk.fork()
del trunk
first = await branch.generate(8).collect()
del branch
return [first, await twin.generate(8).collect()]
"""
    first, second = await value_of(tmp_path, body)
    assert first == second


async def test_passes_of_two_contexts_share_a_batch(tmp_path: Path) -> None:
    body = """
one, other = Context(get_model()), Context(get_model())
one.fill("hello")
other.fill("world")
await asyncio.gather(one.generate(10).collect(), other.generate(10).collect())
return "null"
"""
    script = WorkerScript(step_seconds=0.01)
    async with open_world(tmp_path / "home", script=script) as world:
        end = await world.run(write(tmp_path, body))
    assert end.error is None
    assert 2 in world.batch_sizes()


async def test_a_context_that_is_dropped_gives_its_pages_back(tmp_path: Path) -> None:
    """256 rounds of four pages do not fit into 512 pages unless each round gives its own back."""
    body = """
model = get_model()
for _ in range(256):
    context = Context(model)
    context.fill_tokens([65] * 60)
    await context.flush()
return "null"
"""
    end, _ = await run_body(tmp_path, body)
    assert end.error is None


async def test_a_context_runs_one_pass_at_a_time(tmp_path: Path) -> None:
    body = """
context = Context(get_model())
context.fill("hello")
await asyncio.gather(context.decode_step(), context.decode_step())
"""
    assert "fork it to run two" in await error_of(tmp_path, body)


async def test_a_cancelled_pass_leaves_the_context_usable(tmp_path: Path) -> None:
    body = """
one, other = Context(get_model()), Context(get_model())
for context in (one, other):
    context.fill("hello, this is a text of more than one page")
step = asyncio.create_task(one.decode_step())
await asyncio.sleep(0)
step.cancel()
await asyncio.gather(step, return_exceptions=True)
return [step.cancelled(), await one.decode_step(), await other.decode_step()]
"""
    cancelled, after, reference = await value_of(tmp_path, body)
    assert cancelled
    assert after == reference


async def test_the_choice_after_a_distribution_is_the_programs(tmp_path: Path) -> None:
    body = """
one, other = Context(get_model()), Context(get_model())
for context in (one, other):
    context.fill("hello")
choice = await one.decode_step_dist(top_k=4)
one.fill_tokens([choice.ids[0]])
return [len(choice.ids), choice.probabilities, [await one.decode_step()],
        [await other.decode_step(), await other.decode_step()]]
"""
    count, probabilities, _, _ = await value_of(tmp_path, body)
    assert count == 4
    assert probabilities == sorted(probabilities, reverse=True)


async def test_a_prefix_is_computed_once_and_read_by_later_programs(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        first = json.loads((await world.run("prefix-caching", "--max-tokens", "8")).value)
        second = json.loads((await world.run("prefix-caching", "--max-tokens", "8")).value)
        forgotten = json.loads((await world.run("prefix-caching", "--invalidate")).value)
        third = json.loads((await world.run("prefix-caching", "--max-tokens", "8")).value)
        await world.run("prefix-caching", "--invalidate")
        assert world.books().exported == 0
    assert [run["prefix"] for run in (first, second, third)] == ["computed", "imported", "computed"]
    assert first["text"] == second["text"] == third["text"]
    assert first["tokens"] == second["tokens"] > 100
    assert forgotten == {"forgotten": True}


async def test_programs_talk_by_topic(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        listener = await world.launch("messaging", "--listen", "--topic", "t", "--count", "2")
        assert (await world.run("messaging", "--say", "one", "--topic", "t")).error is None
        assert (await world.run("messaging", "--say", "two", "--topic", "t")).error is None
        await read_all(listener)
        end = await listener.ended.answer()
    assert json.loads(end.value) == ["one", "two"]


async def test_an_error_shows_the_lines_of_the_program_only(tmp_path: Path) -> None:
    error = await error_of(tmp_path, "context = Context(get_model())\nawait context.decode_step()")
    assert "program.py" in error
    assert "await context.decode_step()" in error
    assert "nothing is pending" in error
    assert "context.py" not in error


async def test_what_the_engine_refuses_is_told_in_one_line_that_names_the_place(
    tmp_path: Path,
) -> None:
    error = await error_of(
        tmp_path, "queue = get_model().create_queue()\nqueue.allocate_pages(9999)"
    )
    assert error.startswith("OutOfPages: needed 9999 pages, 512 of 512 are free")
    assert error.endswith("(program.py, line 6)")


async def test_no_bound_is_too_large_for_the_host(tmp_path: Path) -> None:
    body = """
if args:
    return "a child"
context = Context(get_model())
context.fill("hello")
text = await context.generate(10**30, stop=max_tokens(3)).collect()
waiting = [asyncio.ensure_future(asyncio.sleep(each)) for each in (1e30, float("inf"))]
await asyncio.sleep(0.001)
async with start_child("", "x", deadline=float("inf")) as child:
    return [bool(text), [each.done() for each in waiting], await child.outcome()]
"""
    assert await value_of(tmp_path, body) == [True, [False, False], "a child"]


async def test_a_turn_in_which_the_model_said_nothing_is_a_turn(tmp_path: Path) -> None:
    body = """
context = Context(get_model())
for question in ("first", "second"):
    context.fill_user(question)
    await context.generate(0).collect()
context.fill_user("third")
await context.flush()
return [context.model.tokenizer.decode(context.tokens)]
"""
    (text,) = await value_of(tmp_path, body)
    assert [text.count(word) for word in ("first", "second", "third")] == [1, 1, 1]
    assert text.index("first") < text.index("second") < text.index("third")


async def test_a_program_that_does_not_compile_says_where(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("def main(:\n    pass\n")
    async with open_world(tmp_path / "home") as world:
        end = await world.run(program)
    assert end.error is not None
    assert "line 1" in end.error
    assert "SyntaxError" in end.error


async def test_sleeping_tasks_sleep_together(tmp_path: Path) -> None:
    body = """
import time
start = time.monotonic()
await asyncio.gather(*(asyncio.sleep(0.05) for _ in range(10)))
return [time.monotonic() - start]
"""
    (elapsed,) = await value_of(tmp_path, body)
    assert 0.05 <= elapsed < 0.4


async def test_what_a_program_prints_is_its_stdout(tmp_path: Path) -> None:
    async with open_world(tmp_path / "home") as world:
        instance = await world.launch(write(tmp_path, 'print("on stdout")'))
        events = await read_all(instance)
    assert "on stdout" in "".join(event.value for event in events if event.kind == "stdout")


async def test_what_main_returns_is_the_result(tmp_path: Path) -> None:
    end, _ = await run_body(tmp_path, "return args", "ä", "b")
    assert end.value == '["ä", "b"]'
    end, _ = await run_body(tmp_path, 'return "as it is"')
    assert end.value == "as it is"


async def test_a_text_of_no_tokens_runs_no_pass_and_says_nothing(tmp_path: Path) -> None:
    body = """
context = Context(get_model())
context.fill("some words")
try:
    context.generate(-1)
except ValueError as refused:
    return [await context.generate(0).collect(), str(refused)]
"""
    end, world = await run_body(tmp_path, body)
    assert json.loads(end.value) == ["", "a text has no -1 tokens"]
    assert world.script.batches == []


@pytest.mark.parametrize(
    "call",
    [
        "send(bad)",
        "broadcast('topic', bad)",
        "kvs.put('key', bad)",
        "kvs.get(bad)",
        "set_return(bad)",
        "get_model().tokenizer.encode(bad)",
        "start_child('echo', bad)",
    ],
)
async def test_text_that_is_no_utf8_is_an_error_that_a_program_can_catch(
    call: str, tmp_path: Path
) -> None:
    body = f"""
bad = "\\ud800"
try:
    {call}
except UnicodeEncodeError:
    return "caught"
"""
    end, _ = await run_body(tmp_path, body)
    assert (end.error, end.value) == (None, "caught")


@pytest.mark.parametrize("last", ["return bad", "raise SystemExit(bad)", "raise ValueError(bad)"])
async def test_a_program_may_end_with_text_that_is_no_utf8(last: str, tmp_path: Path) -> None:
    error = await error_of(tmp_path, f'bad = "\\ud800"\n{last}')
    assert "\\ud800" in error
    assert "wasm" not in error
