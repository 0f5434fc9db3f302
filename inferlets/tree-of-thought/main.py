"""tree-of-thought: proposes plans, carries each out, reflects on the results, keeps the best."""

import asyncio
import re
from argparse import Namespace

from inferlet import ArgumentParser, Context, Sampler, send

SYSTEM = "You solve problems carefully, in few words."
STEPS = (
    "Propose one plan to solve this problem, in one sentence: {question}",
    "Carry out your plan and give the result.",
    "How sure are you that the result is right, from 1 to 10? Begin with the number.",
)


def read_arguments(args: list[str]) -> Namespace:
    parser = ArgumentParser("tree-of-thought", "plans, solves and reflects in a tree of branches")
    parser.add_argument("--question", default="What is 17 + 25?", help="the problem")
    parser.add_number("--branches", 2, "so many at each of three levels", least=1)
    parser.add_number("--max-tokens", 48, "at most so many a thought")
    parser.add_number("--temperature", 0.7, "what makes branches differ")
    parser.add_model("which model thinks")
    return parser.parse_args(args)


async def think(trunk: Context, thoughts: list[str], wanted: Namespace) -> list[list[str]]:
    """All ways from here to a leaf; siblings share everything up to their parent."""
    if len(thoughts) == len(STEPS):
        return [thoughts]
    trunk.fill_user(STEPS[len(thoughts)].format(question=wanted.question))
    await trunk.flush()

    async def branch(twig: Context) -> list[list[str]]:
        sampler = Sampler.for_top_p(wanted.temperature, 0.95)
        thought = await twig.generate(wanted.max_tokens, sampler).collect()
        return await think(twig, [*thoughts, thought], wanted)

    ways = await asyncio.gather(*(branch(trunk.fork()) for _ in range(wanted.branches)))
    return [way for some in ways for way in some]


def confidence(way: list[str]) -> int:
    found = re.search(r"\d+", way[-1])
    return min(int(found[0]), 10) if found else 0


async def main(args: list[str]) -> dict[str, object]:
    wanted = read_arguments(args)
    trunk = Context(wanted.model)
    trunk.fill_system(SYSTEM)
    ways = await think(trunk, [], wanted)
    best = max(ways, key=confidence)
    send(best[1])
    return {"leaves": len(ways), "confidence": confidence(best), "plan": best[0], "result": best[1]}
