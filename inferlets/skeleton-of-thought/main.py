"""skeleton-of-thought: the points of an answer first, then all of them written at the same time."""

import asyncio
from argparse import Namespace

from inferlet import ArgumentParser, Context, send

SYSTEM = "You are a helpful teacher. You answer in short sentences."
QUESTION = "How do I learn to swim?"


def read_arguments(args: list[str]) -> Namespace:
    parser = ArgumentParser(
        "skeleton-of-thought", "plans an answer's points and writes them at once"
    )
    parser.add_argument("--question", default=QUESTION, help="what the user asks")
    parser.add_number("--points", 3, "at most so many points", least=1)
    parser.add_argument("--plan", action="append", help="a point; given, the model plans nothing")
    parser.add_number("--plan-tokens", 80, "at most so many for the plan")
    parser.add_number("--max-tokens", 80, "at most so many a point")
    parser.add_model("which model answers")
    return parser.parse_args(args)


async def plan(trunk: Context, wanted: Namespace) -> list[str]:
    """The lines of the model's list."""
    planner = trunk.fork()
    planner.fill_user(f"{wanted.question} List {wanted.points} points, a few words each.")
    text = await planner.generate(wanted.plan_tokens).collect()
    lines = [line.strip(" -*0123456789.") for line in text.splitlines()]
    return list(dict.fromkeys(line for line in lines if line))[: wanted.points]


async def write(trunk: Context, question: str, point: str, tokens_max: int) -> str:
    branch = trunk.fork()
    branch.fill_user(f"{question} Write one or two sentences about this point only: {point}")
    text = await branch.generate(tokens_max).collect()
    send(f"{point}\n{text}\n\n")
    return text


async def main(args: list[str]) -> dict[str, str]:
    wanted = read_arguments(args)
    trunk = Context(wanted.model)
    trunk.fill_system(SYSTEM)
    await trunk.flush()
    points = wanted.plan or await plan(trunk, wanted)
    writing = (write(trunk, wanted.question, point, wanted.max_tokens) for point in points)
    return dict(zip(points, await asyncio.gather(*writing), strict=True))
