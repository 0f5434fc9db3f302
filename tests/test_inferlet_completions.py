"""The kits in C and in Python complete alike: the same tokens by the same seeds, penalties, biases.

The pretend worker's tokens are a checksum of what a pass reads, so any difference between what the
two give to the model shows in the text.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pie_trio.services.guest_build.c_component import build_c
from tests.test_inferlet_pretend import write
from tests.world import open_world, read_all


@pytest.mark.parametrize(
    "prompt", ["Where is Übermorgen?", 'say "a\\b"\n\tand \x01 🙂', "a long one " * 300]
)
async def test_the_c_and_the_python_completion_write_the_same_text(
    prompt: str, tmp_path: Path
) -> None:
    arguments = ("--prompt", prompt, "--system", 'You are "it".', "--max-tokens", "40")
    async with open_world(tmp_path) as world:
        in_c = await world.run("text-completion", *arguments)
        in_python = await world.run("text-completion-py", *arguments)
    assert in_c.error is None
    assert in_c.value
    assert in_python.value == in_c.value


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("--top-p", "0.7"),
        ("--repetition-penalty", "1.9"),
        ("--frequency-penalty", "0.7", "--presence-penalty", "-0.5"),
    ],
)
async def test_a_seed_writes_the_same_text_in_c_and_in_python_and_each_time(
    more: tuple[str, ...], tmp_path: Path
) -> None:
    def arguments(seed: int) -> tuple[str, ...]:
        """So many tokens that one stream's pages are not enough."""
        how = ("--temperature", "1", "--seed", str(seed), *more)
        return ("--prompt", "dice", "--max-tokens", "300", *how)

    async with open_world(tmp_path) as world:
        in_c, in_python, again, other = [
            (await world.run(program, *arguments(seed))).value
            for program, seed in (
                *(("text-completion", 5), ("text-completion-py", 5)),
                *(("text-completion", 5), ("text-completion", 6)),
            )
        ]
    assert in_c == in_python == again
    assert in_c != other


@pytest.mark.parametrize("program", ["text-completion", "text-completion-py"])
async def test_what_a_completion_sends_is_what_it_returns(program: str, tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        instance = await world.launch(program, "--prompt", "hello", "--max-tokens", "200")
        events = await read_all(instance)
        end = await instance.ended.answer()
    pieces = [event.value for event in events if event.kind == "message"]
    assert len(pieces) > 1
    assert "".join(pieces) == end.value


async def test_biases_of_c_and_of_python_ban_the_same_tokens(tmp_path: Path) -> None:
    component = tmp_path / "sampled.wasm"
    build_c(Path(__file__).parent / "guests", "sampled.c", component)
    body = """
context = Context(get_model())
context.fill("some words")
sampler = Sampler(1.0, min_p=0.001, seed=7, bias={int(each): -1000.0 for each in args})
written = context.generate(100, sampler, stop=max_tokens(100))
return [await written.collect(), written.tokens]
"""
    program = write(tmp_path, body)
    async with open_world(tmp_path / "home") as world:
        free, tokens = json.loads((await world.run(program)).value)
        banned = sorted({*tokens[:2]})
        bound, others = json.loads((await world.run(program, *map(str, banned))).value)
        in_c = [await world.run(component, *map(str, each)) for each in ((), banned)]
    assert [end.error for end in in_c] == [None, None]
    assert [end.value for end in in_c] == [free, bound]
    assert not {*banned} & {*others}
