"""graph-of-thought: several proposals, joined in pairs as they are done, and joined again."""

import asyncio
from argparse import Namespace

from inferlet import ArgumentParser, Context, send

SYSTEM = "You summarise texts. You answer with the summary alone."
TEXT = (
    "The town built its first bridge of wood. A flood took it after nine years. The second one, of "
    "stone, stood for two centuries, until lorries became too heavy for it. Today people walk on "
    "it, and the traffic crosses the river on a bridge of steel half a mile upstream."
)
LENGTHS = "4,32,16,8,4,16,3,32"


def length(text: str) -> int:
    if not 0 <= int(text) <= 100_000:
        raise ValueError(text)
    return int(text)


def read_arguments(args: list[str]) -> Namespace:
    parser = ArgumentParser("graph-of-thought", "proposes many summaries and joins them")
    parser.add_argument("--text", default=TEXT, help="what to summarise")
    parser.add_list("--proposals", LENGTHS, "tokens of each proposal, by commas", length)
    parser.add_number("--max-tokens", 48, "at most so many for a join")
    parser.add_model("which model writes")
    return parser.parse_args(args)


async def ask(trunk: Context, prompt: str, tokens_max: int) -> str:
    branch = trunk.fork()
    branch.fill_user(prompt)
    return await branch.generate(tokens_max).collect()


async def join(trunk: Context, parts: list[str], tokens_max: int) -> str:
    listed = "\n".join(f"- {part}" for part in parts)
    return await ask(trunk, f"Join these summaries into one sentence:\n{listed}", tokens_max)


async def join_as_they_come(
    trunk: Context, parts: list[asyncio.Task[str]], tokens_max: int
) -> list[asyncio.Task[str]]:
    """A join of every two that are there, started at once; nobody waits for the slowest."""
    joins, waiting = [], []
    for part in asyncio.as_completed(parts):
        waiting.append(await part)
        if len(waiting) == 2:
            joins.append(asyncio.create_task(join(trunk, waiting, tokens_max)))
            waiting = []
    if waiting:
        joins.append(asyncio.create_task(join(trunk, waiting, tokens_max)))
    return joins


async def main(args: list[str]) -> dict[str, object]:
    wanted = read_arguments(args)
    trunk = Context(wanted.model)
    trunk.fill_system(SYSTEM)
    await trunk.flush()
    prompt = f"Summarise: {wanted.text}"
    layer = [asyncio.create_task(ask(trunk, prompt, length)) for length in wanted.proposals]
    layers = [len(layer)]
    while len(layer) > 1:
        layer = await join_as_they_come(trunk, layer, wanted.max_tokens)
        layers.append(len(layer))
    text = await layer[0]
    send(text)
    return {"layers": layers, "text": text}
