"""output-validation: how likely the model finds each of several given answers."""

import asyncio
import math
from argparse import Namespace

from inferlet import ArgumentParser, Context, send

CANDIDATES = ("Paris", "London", "Berlin", "Rome")


def read_arguments(args: list[str]) -> Namespace:
    parser = ArgumentParser("output-validation", "chooses among given answers")
    parser.add_argument("--prompt", default="What is the capital of France? Answer in one word.")
    parser.add_argument("--candidate", action="append", help="a possible answer")
    parser.add_model("which model judges")
    return parser.parse_args(args)


async def score(trunk: Context, candidate: str) -> float:
    """ln p of the whole answer, and of its end."""
    tokens = trunk.model.tokenizer.encode(candidate) + trunk.model.stop_tokens()[:1]
    return sum(await trunk.fork().score(tokens))


async def main(args: list[str]) -> dict[str, float]:
    wanted = read_arguments(args)
    trunk = Context(wanted.model)
    trunk.fill_user(wanted.prompt)
    await trunk.flush()
    candidates = wanted.candidate or CANDIDATES
    scores = await asyncio.gather(*(score(trunk, each) for each in candidates))
    weights = [math.exp(each - max(scores)) for each in scores]
    shares = {each: w / sum(weights) for each, w in zip(candidates, weights, strict=True)}
    send(max(shares, key=lambda each: shares[each]))
    return shares
