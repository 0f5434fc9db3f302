"""Every program on the real model: what it says and returns, as `expected.json` beside it has it.

One server, started as a user starts it, and the public client. Each case gives arguments and what
the client sends meanwhile; texts are compared as they stand, `..._matches` as patterns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pie_trio.client import open_client
from tests.support.kit import INFERLETS
from tests.support.served import serving

pytestmark = [pytest.mark.model, pytest.mark.slow]

PROGRAMS = sorted(path.parent.name for path in INFERLETS.glob("*/Pie.toml"))
CASES = [
    pytest.param(name, case, id=f"{name}-{number}")
    for name in PROGRAMS
    for number, case in enumerate(json.loads((INFERLETS / name / "expected.json").read_text()))
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a server with the default model listens."""
    with serving(tmp_path_factory.mktemp("configuration")) as where:
        yield where


@pytest.mark.parametrize(("program", "case"), CASES)
async def test_a_program_does_what_its_folder_says(
    program: str, case: dict[str, Any], url: str
) -> None:
    async with open_client(url) as client:
        instance = await client.launch(program, arguments=case["arguments"])
        for message in case.get("receives", []):
            await instance.send(message)
        returned = await instance.result()
    assert_met(case, instance.output, returned)


def assert_met(case: dict[str, Any], said: str, returned: str) -> None:
    assert_like(case, "returns", returned)
    if field := case.get("says_returned"):
        assert said == json.loads(returned)[field]
    else:
        assert_like(case, "says", said)


def assert_like(case: dict[str, Any], what: str, actual: str) -> None:
    pattern = case.get(f"{what}_matches")
    if pattern is None:
        assert actual == case.get(what, "")
    else:
        assert re.fullmatch(pattern, actual), f"{actual!r} does not match {pattern!r}"


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_has_an_expectation(program: str) -> None:
    assert any(case.values[0] == program for case in CASES), program


@pytest.mark.parametrize(("program", "case"), CASES)
def test_silence_meets_no_expectation(program: str, case: dict[str, Any]) -> None:
    patterns = [pattern for key, pattern in case.items() if key.endswith("_matches")]
    assert not any(re.fullmatch(pattern, "") for pattern in patterns)
    with pytest.raises((AssertionError, json.JSONDecodeError)):
        assert_met(case, "", "")


def test_both_completions_are_expected_to_say_the_same() -> None:
    texts = [
        [(case["arguments"], case["says"]) for case in cases_of(INFERLETS / name)]
        for name in ("text-completion", "text-completion-py")
    ]
    assert texts[0] == texts[1]


def cases_of(program: Path) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads((program / "expected.json").read_text())
    return cases
