"""From the JSON of a launch to the program's arguments.

Pure. A list stands for itself, also under `args`; otherwise each key becomes `--key value`: `true`
is a bare flag, `false` and `null` are left out, a list repeats its key, an object is written as
JSON, and `_positional` comes last. An underscore in a key is written as `-`, because the official
command line turns `--max-tokens` into `max_tokens`. What cannot be mapped is refused, not guessed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TypeGuard

from pie_trio.config import Limits
from pie_trio.errors import BadRequest

KEY = re.compile(r"[A-Za-z][\w.-]*")
ARGUMENTS_KEY = "args"
POSITIONAL_KEY = "_positional"


def launch_arguments(text: str, limits: Limits, *, call: str = "args") -> list[str]:
    """Raises `BadRequest`. A program called with `kwargs` gets the JSON itself, as one argument."""
    if len(text.encode(errors="replace")) > limits.arguments_bytes:
        raise BadRequest(f"the launch input is larger than {limits.arguments_bytes} bytes")
    value = _parse(text)
    if call == "kwargs":
        return [text]
    if value is None:
        return []
    if _is_list(value):
        return [_word(item) for item in value]
    if not _is_object(value):
        raise BadRequest("the launch input is neither an object nor a list")
    listed = value.get(ARGUMENTS_KEY)
    if _is_list(listed):
        return [_word(item) for item in listed]
    return list(_words(value))


def _parse(text: str) -> object:
    try:
        value: object = json.loads(text) if text.strip() else None
    except ValueError as error:
        raise BadRequest(f"the launch input is not JSON: {error}") from None
    except RecursionError:
        raise BadRequest("the launch input is nested too deeply") from None
    return value


def _words(keys: Mapping[str, object]) -> Iterator[str]:
    for key, value in keys.items():
        if key != POSITIONAL_KEY:
            yield from _option(key, value)
    positional = keys.get(POSITIONAL_KEY, [])
    yield from (_word(item) for item in (positional if _is_list(positional) else [positional]))


def _option(key: str, value: object) -> Iterator[str]:
    if not KEY.fullmatch(key):
        raise BadRequest(f"the launch input has the key {key[:80]!r}, which cannot be an option")
    flag = f"--{key.replace('_', '-')}"
    for item in value if _is_list(value) else [value]:
        if item is True:
            yield flag
        elif item is not False and item is not None:
            yield flag
            yield _word(item)


def _word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _is_list(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)


def _is_object(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)
