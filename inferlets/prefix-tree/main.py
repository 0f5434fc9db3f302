"""prefix-tree: a tree of prompts with common beginnings, every one of them computed once."""

import asyncio
from argparse import Namespace
from itertools import product

from inferlet import ArgumentParser, Context, send

ROOT = "You write one short, plain sentence and nothing else."
LEVELS = (
    ("The sentence is about the sea.", "The sentence is about a mountain."),
    ("It is told by a child.", "It is told by an old man."),
    ("It takes place in the morning.", "It takes place at night."),
)


def read_arguments(args: list[str]) -> Namespace:
    parser = ArgumentParser("prefix-tree", "writes at the eight leaves of a tree of prompts")
    parser.add_model("which model writes")
    parser.add_number("--max-tokens", 32, "at most so many a leaf")
    return parser.parse_args(args)


async def grow(trunk: Context, path: tuple[str, ...], tokens_max: int) -> list[str]:
    """Writes at every leaf below this node. The node is computed before its branches start."""
    trunk.fill(" ".join(path[-1:]) + " ")
    await trunk.flush()
    if len(path) > len(LEVELS):
        text = await trunk.generate(tokens_max).collect()
        send(f"{' '.join(path[1:])}\n{text.strip()}\n\n")
        return [text]
    parts = LEVELS[len(path) - 1]
    grown = await asyncio.gather(*(grow(trunk.fork(), (*path, p), tokens_max) for p in parts))
    return [text for texts in grown for text in texts]


async def main(args: list[str]) -> dict[str, str]:
    wanted = read_arguments(args)
    texts = await grow(Context(wanted.model), (ROOT,), wanted.max_tokens)
    return dict(zip(map(" ".join, product(*LEVELS)), texts, strict=True))
