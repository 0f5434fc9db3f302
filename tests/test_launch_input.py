"""From launch input to arguments: the table of the issue, and what is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie_trio.config import Limits
from pie_trio.errors import BadRequest
from pie_trio.services.launch_input import launch_arguments

TABLE: list[tuple[str, list[str]]] = [
    ("", []),
    ("null", []),
    ("{}", []),
    ('{"args": ["--x", "a b", 3]}', ["--x", "a b", "3"]),
    ('["a", {"b": 1}]', ["a", '{"b": 1}']),
    ('{"prompt": "hi", "max_tokens": 64}', ["--prompt", "hi", "--max-tokens", "64"]),
    ('{"verbose": true, "quiet": false, "model": null}', ["--verbose"]),
    ('{"stop": ["a", "b"]}', ["--stop", "a", "--stop", "b"]),
    ('{"schema": {"é": [1, 2.5]}}', ["--schema", '{"é": [1, 2.5]}']),
    ('{"_positional": ["x", 1], "k": 1.5}', ["--k", "1.5", "x", "1"]),
    ('{"_positional": "x"}', ["x"]),
    ('{"args": "one"}', ["--args", "one"]),
    ('{"flags": [true, false, "on"]}', ["--flags", "--flags", "on"]),
]


@pytest.mark.parametrize("text, expected", TABLE)
def test_launch_input_becomes_arguments(text: str, expected: list[str]) -> None:
    assert launch_arguments(text, Limits()) == expected


def test_a_program_called_with_kwargs_gets_the_input_itself() -> None:
    assert launch_arguments('{"a_b": 1}', Limits(), call="kwargs") == ['{"a_b": 1}']


@pytest.mark.parametrize(
    "text",
    ["{", "3", '"text"', '{"a b": 1}', '{"": 1}', '{"-x": 1}', "[" * 200_000, '"' + "x" * 999],
)
def test_what_cannot_be_mapped_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        launch_arguments(text, Limits())


def test_input_beyond_the_bound_is_refused() -> None:
    with pytest.raises(BadRequest, match="larger than 8"):
        launch_arguments('{"prompt": "long"}', Limits(arguments_bytes=8))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=9))
def test_any_value_of_one_key_is_mapped_to_strings(value: object) -> None:
    arguments = launch_arguments(json.dumps({"key": value}), Limits())
    assert all(isinstance(argument, str) for argument in arguments)
