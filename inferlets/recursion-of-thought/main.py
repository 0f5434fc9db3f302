"""recursion-of-thought: divides a problem until it is easy, solves the parts, merges them."""

import asyncio
from argparse import Namespace

from inferlet import ArgumentParser, Context, send

SYSTEM = "You solve problems by small steps. You answer in one short sentence."
QUESTION = "What is the product of 987 and 123?"
DIVIDES = {"branch": True, "leaf": False}


def read_arguments(args: list[str]) -> Namespace:
    parser = ArgumentParser("recursion-of-thought", "divides, solves and merges, in forks")
    parser.add_argument("--question", default=QUESTION, help="the problem")
    parser.add_number("--depth", 3, "divide at most so often")
    parser.add_number("--max-tokens", 32, "at most so many a step")
    parser.add_list("--script", None, "decisions, as in branch,leaf,leaf", DIVIDES.__getitem__)
    parser.add_model("which model thinks")
    return parser.parse_args(args)


class Recursion:
    """One problem and what may be spent on it; `leaves` counts what was solved directly."""

    def __init__(self, wanted: Namespace) -> None:
        self._tokens_max = wanted.max_tokens
        self._script: list[bool] = wanted.script or []
        self.leaves = 0

    async def solve(self, trunk: Context, problem: str, depth: int) -> str:
        if depth == 0 or not await self._divides(trunk, problem):
            self.leaves += 1
            return await self._say(trunk, f"Solve this: {problem}")
        halves = (
            await self._say(trunk, f"What is the first half of this problem? {problem}"),
            await self._say(trunk, f"What is the second half of this problem? {problem}"),
        )
        solving = (self.solve(trunk, half, depth - 1) for half in halves)
        first, second = await asyncio.gather(*solving)
        return await self._say(trunk, f"{problem} We know: {first} {second} Merge the two.")

    async def _divides(self, trunk: Context, problem: str) -> bool:
        if self._script:
            return self._script.pop(0)
        asked = trunk.fork()
        asked.fill_user(f"Is this problem easy? Answer <leaf> if so, else <branch>. {problem}")
        await asked.flush()
        answers = [trunk.model.tokenizer.encode(f"<{name}>") for name in DIVIDES]
        scores = await asyncio.gather(*(asked.fork().score(answer) for answer in answers))
        branch, leaf = map(sum, scores)
        return branch > leaf

    async def _say(self, trunk: Context, prompt: str) -> str:
        """Every question is a fork of the common start, so nothing is read twice."""
        fork = trunk.fork()
        fork.fill_user(prompt)
        return await fork.generate(self._tokens_max).collect()


async def main(args: list[str]) -> dict[str, object]:
    wanted = read_arguments(args)
    trunk = Context(wanted.model)
    trunk.fill_system(SYSTEM)
    await trunk.flush()
    recursion = Recursion(wanted)
    text = await recursion.solve(trunk, wanted.question, wanted.depth)
    send(text)
    return {"leaves": recursion.leaves, "text": text}
