"""text-completion-py: answers one chat prompt, streaming the text as the model writes it."""

from argparse import Namespace

from inferlet import ArgumentParser, Context, Sampler, get_model, send


def read_arguments(args: list[str]) -> Namespace:
    parser = ArgumentParser("text-completion-py", "answers one prompt")
    parser.add_argument("--prompt", required=True, help="what the user asks")
    parser.add_argument("--system", help="the system message")
    parser.add_argument("--model", help="which model answers (default: the first)")
    parser.add_argument("--max-tokens", type=int, default=256, help="at most so many tokens")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
    parser.add_argument("--top-p", type=float, default=1.0, help="the likeliest share of the mass")
    parser.add_argument("--seed", type=int, help="the same text for the same number")
    return parser.parse_args(args)


async def main(args: list[str]) -> str:
    wanted = read_arguments(args)
    context = Context(get_model(wanted.model))
    if wanted.system:
        context.fill_system(wanted.system)
    context.fill_user(wanted.prompt)
    top_p = wanted.top_p if wanted.top_p < 1 else None
    sampler = Sampler(wanted.temperature, top_p=top_p, seed=wanted.seed)
    answer = context.generate(wanted.max_tokens, sampler)
    async for piece in answer:
        send(piece)
    return answer.text
