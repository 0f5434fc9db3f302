"""The other side of every comparison: an application that runs at its client.

A `Talk` asks the same engine for plain completions. Without a cache each one is prefilled anew;
with one, the server keeps what it has computed and goes on from there.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import attrs

import inferlets
from benchmarks.paper.prompts import Part
from pie_trio.client import Client


def constant(program: str, name: str) -> str:
    """A text of a shipped program, so that both sides say the same."""
    return str(value_of(program, name))


def value_of(program: str, name: str) -> Any:
    """What it has under that name, if that is written out there."""
    [folder] = inferlets.__path__
    tree = ast.parse((Path(folder) / program / "main.py").read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    raise LookupError(f"{program} has no {name}")


async def run_program(client: Client, program: str, *arguments: str) -> str:
    """What it returns. One round trip: the launch, and all that it says comes by itself."""
    instance = await client.launch(program, arguments=arguments)
    return await instance.result()


class Completions(Protocol):
    """What an application at its client can ask for."""

    async def complete(self, parts: Sequence[Part], tokens: int, is_exact: bool = False) -> str:
        """Exact: so many tokens, whatever the model would rather do."""

    async def remember(self, parts: Sequence[Part]) -> None:
        """What several requests are about to begin with; a round trip, if it is worth one."""


@attrs.frozen
class Talk:
    """Plain completions of our own engine, over one connection."""

    client: Client
    program: str
    cache: str | None = None  # the name under which all is kept

    async def complete(self, parts: Sequence[Part], tokens: int, is_exact: bool = False) -> str:
        arguments = ["--parts", json.dumps(parts), "--max-tokens", str(tokens)]
        arguments += ["--no-stop"] if is_exact else []
        arguments += [] if self.cache is None else ["--cache", self.cache]
        return await run_program(self.client, self.program, *arguments)

    async def remember(self, parts: Sequence[Part]) -> None:
        if self.cache is not None:
            await self.complete(parts, 0)
