"""Every program says how it is called, and refuses by name what it cannot be called with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.kit import INFERLETS
from tests.world import open_world, read_all

PROGRAMS = sorted(path.parent.name for path in INFERLETS.glob("*/Pie.toml"))


@pytest.mark.parametrize("program", PROGRAMS)
async def test_every_program_has_a_help(program: str, tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        instance = await world.launch(program, "--help")
        events = await read_all(instance)
        end = await instance.ended.answer()
    assert end.error is None
    said = "".join(event.value for event in events if event.kind == "message")
    assert program in said


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_says_what_it_is(program: str) -> None:
    readme = (INFERLETS / program / "README.md").read_text()
    assert readme.startswith(f"{program}: ")


@pytest.mark.parametrize(
    ("program", "arguments", "reason"),
    [
        ("text-completion", (), "--prompt is missing"),
        ("text-completion", ("--prompt",), "bad argument, see --help: --prompt"),
        ("text-completion", ("--prompt", "x", "--loud"), "bad argument, see --help: --loud"),
        ("text-completion", ("--prompt", "x", "--max-tokens", "many"), "--max-tokens"),
        ("text-completion", ("--prompt", "x", "--temperature", "."), "see --help: --temperature"),
        ("text-completion", ("--prompt", "x", "--temperature", "-1"), "see --help: --temperature"),
        ("text-completion", ("--prompt", "x", "--top-p", "1.5"), "see --help: --top-p"),
        ("text-completion", ("--prompt", "x", "--model", "none"), "no such model: none"),
        ("text-completion-py", (), "bad argument, see --help"),
        ("text-completion-py", ("--prompt", "x", "--model", "none"), "no such model: none"),
        ("text-completion-py", ("--prompt", "x", "--temperature", "nan"), "no number of 0 or more"),
        ("text-completion-py", ("--prompt", "x", "--temperature", "inf"), "no number of 0 or more"),
        (
            "text-completion-py",
            ("--prompt", "x", "--max-tokens", "-1"),
            "no whole number from 0 to",
        ),
        ("text-completion-py", ("--prompt", "x", "--top-p", "0"), "no number from 1e-06 to 1"),
        ("helloworld", ("--shout",), "bad argument, see --help: --shout"),
        ("beam-search", ("--beams", "0"), "'0' is no whole number from 1 to 256"),
        ("best-of-n", ("--samples", "9" * 20), "is no whole number from 1 to 1000"),
        ("best-of-n", ("--max-tokens", "9" * 20), "is no whole number from 0 to 1000000"),
        ("jacobi-decoding", ("--guesses", "257"), "'257' is no whole number from 0 to 256"),
        ("graph-of-thought", ("--proposals", "4,a"), "'a' makes no sense there"),
        ("graph-of-thought", ("--proposals", "4,-1"), "'-1' makes no sense there"),
        ("modular-caching", ("--modules", "nope"), "'nope' makes no sense there"),
        ("windowed-attention", ("--prompt", ""), "the prompt has no tokens"),
        ("parallel-generation", ("--max-tokens", "999999"), "OutOfPages: needed "),
        ("constrained-decoding", ("--regex", "("), "bad grammar: "),
        ("json-schema", ("--schema", "{"), "bad schema: "),
        ("hierarchical-attention", ("--document", "<a"), "bad document: "),
        ("hierarchical-attention", ("--document", "<a>" * 3000 + "</a>" * 3000), "bad document: "),
        ("image-fetch", ("--url", "data:;base64,iVBORw0KGgo="), "no image: it is damaged"),
        ("image-fetch", ("--url", "data:;base64,R0lGODlh"), "no image: it is damaged"),
        ("image-fetch", ("--url", "data:;base64,/9j/"), "no image: a JPEG without a frame"),
        ("image-fetch", ("--url", "data:;base64,?"), "no image: "),
        ("image-fetch", ("--url", "data:,"), "no image: neither PNG nor JPEG nor GIF"),
        ("echo", ("--shout", "x"), "bad argument, see --help: --shout"),
        ("bench-latency", ("--layer", "kernel"), "not kernel"),
        ("bench-latency", ("--count", "0"), "--count is 1 to 10000"),
    ],
)
async def test_a_wrong_argument_is_named(
    program: str, arguments: tuple[str, ...], reason: str, tmp_path: Path
) -> None:
    async with open_world(tmp_path) as world:
        end = await world.run(program, *arguments)
    assert end.error is not None
    assert reason in end.error
    assert "Traceback" not in end.error
    assert "unreachable" not in end.error
