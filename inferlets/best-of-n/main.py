"""best-of-n: several answers at the same time; the one that the model finds likeliest is kept."""

import asyncio
from argparse import Namespace

from inferlet import ArgumentParser, Context, Sampler, send


def read_arguments(args: list[str]) -> Namespace:
    parser = ArgumentParser("best-of-n", "draws answers and keeps the best")
    parser.add_argument("--prompt", default="Name a colour of the rainbow.", help="the question")
    parser.add_number("--samples", 4, "so many answers", least=1, most=1000)
    parser.add_number("--temperature", 0.8, "what makes them differ")
    parser.add_number("--max-tokens", 48, "at most so many tokens each")
    parser.add_model("which model answers")
    return parser.parse_args(args)


async def draw(trunk: Context, wanted: Namespace) -> tuple[float, str]:
    """An answer, and the mean ln p of its tokens."""
    answer = trunk.fork().generate(wanted.max_tokens, Sampler(wanted.temperature, logprobs=0))
    text = await answer.collect()
    return sum(each.logprob for each in answer.logprobs) / max(len(answer.tokens), 1), text


async def main(args: list[str]) -> dict[str, object]:
    wanted = read_arguments(args)
    trunk = Context(wanted.model)
    trunk.fill_user(wanted.prompt)
    await trunk.flush()
    drawn = await asyncio.gather(*(draw(trunk, wanted) for _ in range(wanted.samples)))
    score, text = max(drawn)
    send(text)
    return {"text": text, "score": score, "scores": [each for each, _ in drawn]}
