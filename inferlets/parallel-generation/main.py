"""parallel-generation: one common start, several continuations written at the same time."""

import asyncio
from argparse import Namespace

from inferlet import ArgumentParser, Context, send

SYSTEM = "You are a helpful teacher. You explain one thing at a time, in one short sentence."
PROMPTS = ["What is the capital of France?", "How many days are in a week?"]


def read_arguments(args: list[str]) -> Namespace:
    parser = ArgumentParser("parallel-generation", "answers several prompts at the same time")
    parser.add_argument("--prompt", action="append", help="a question; may be given many times")
    parser.add_argument("--system", default=SYSTEM, help="the common start")
    parser.add_model("which model answers")
    parser.add_number("--max-tokens", 32, "at most so many tokens each")
    return parser.parse_args(args)


async def answer(branch: Context, prompt: str, tokens_max: int) -> str:
    branch.fill_user(prompt)
    text = await branch.generate(tokens_max).collect()
    send(f"{prompt}\n{text}\n\n")
    return text


async def main(args: list[str]) -> list[str]:
    wanted = read_arguments(args)
    trunk = Context(wanted.model)
    trunk.fill_system(wanted.system)
    await trunk.flush()
    prompts = wanted.prompt or PROMPTS
    branches = [trunk.fork() for _ in prompts]
    return await asyncio.gather(
        *(
            answer(branch, prompt, wanted.max_tokens)
            for branch, prompt in zip(branches, prompts, strict=True)
        )
    )
