"""The other side of every comparison: an application that runs at its client.

A `Talk` asks the same engine for plain completions. Without a session each one is prefilled anew;
with one, the server keeps what it has computed and goes on from there.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

import inferlets
from pie_trio.client import Client

Part = tuple[str, str]  # a role (system, user, or text as it stands) and what it says


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


@attrs.frozen
class Talk:
    """Plain completions over one connection."""

    client: Client
    program: str
    session: str | None = None  # the name of what is kept between calls

    async def complete(self, parts: Sequence[Part], tokens: int, is_exact: bool = False) -> str:
        """Exact: so many tokens, whatever the model would rather do."""
        arguments = ["--parts", json.dumps(parts), "--max-tokens", str(tokens)]
        arguments += ["--no-stop"] if is_exact else []
        if self.session is not None:
            arguments += ["--open", self.session, "--save", self.session]
        return await run_program(self.client, self.program, *arguments)

    def named(self, suffix: str) -> Talk:
        """Another conversation of the same kind."""
        session = None if self.session is None else f"{self.session}/{suffix}"
        return attrs.evolve(self, session=session)
