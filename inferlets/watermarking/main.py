"""watermarking: prefers, at each token, a secret half of all words; who knows it can tell."""

import hashlib
import itertools
import math
import random
from argparse import Namespace

from inferlet import ArgumentParser, Context, Distribution, Sampler, max_tokens, send


def read_arguments(args: list[str]) -> Namespace:
    parser = ArgumentParser("watermarking", "writes text with a watermark, or looks for one")
    parser.add_argument("--prompt", default="Tell me a story about a lighthouse.")
    parser.add_argument("--key", default="pie", help="the secret")
    parser.add_number("--delta", 2.0, "how strongly; 0 is not at all", most=100)
    parser.add_number("--seed", 1, "of the draws", most=2**64 - 1)
    parser.add_number("--max-tokens", 256, "so many tokens", least=2)
    parser.add_model("which model writes")
    return parser.parse_args(args)


def is_green(key: str, before: int, token: int) -> bool:
    return hashlib.blake2b(f"{key}/{before}/{token}".encode(), digest_size=1).digest()[0] < 128


def z_score(key: str, tokens: list[int]) -> float:
    """How many standard deviations there are more green tokens than chance would have."""
    pairs = list(itertools.pairwise(tokens))
    green = sum(is_green(key, before, token) for before, token in pairs)
    return (green - len(pairs) / 2) / math.sqrt(len(pairs) / 4)


async def main(args: list[str]) -> dict[str, object]:
    wanted = read_arguments(args)
    context = Context(wanted.model)
    context.fill_user(wanted.prompt)
    chance, strength = random.Random(wanted.seed), math.exp(wanted.delta)

    def choose(likely: Distribution) -> int:
        before = context.tokens[-1]
        liked = [strength if is_green(wanted.key, before, token) else 1 for token in likely.ids]
        weights = [p * s for p, s in zip(likely.probabilities, liked, strict=True)]
        return chance.choices(likely.ids, weights)[0]

    stop = max_tokens(wanted.max_tokens)
    answer = context.generate(wanted.max_tokens, Sampler.custom(choose), stop)
    async for piece in answer.chunks():
        send(piece)
    z = z_score(wanted.key, answer.tokens)
    return {"text": answer.text, "z": z, "p": math.erfc(z / math.sqrt(2)) / 2}
