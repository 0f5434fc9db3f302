"""A guest that asks for every token by a pass of its own, so that it can die at many places."""

from __future__ import annotations

from pathlib import Path

SOURCE = """
from inferlet import Context, get_model, send

async def main(args):
    context = Context(get_model())
    context.fill("What is the capital of France?")
    for _ in range(6):
        send(str(await context.decode_step()))
    return "done"
"""


def write_program(directory: Path) -> Path:
    path = directory / "by_passes.py"
    path.write_text(SOURCE, "utf-8")
    return path
