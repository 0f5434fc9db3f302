"""beam-search: the likeliest text among the best few at every step."""

from argparse import Namespace

from inferlet import ArgumentParser, Context, get_model, send


def read_arguments(args: list[str]) -> Namespace:
    parser = ArgumentParser("beam-search", "writes the likeliest of several texts")
    parser.add_argument("--prompt", default="What is the capital of France?", help="the question")
    parser.add_argument("--beams", type=int, default=3, help="so many texts at a time")
    parser.add_argument("--max-tokens", type=int, default=32, help="at most so many tokens")
    parser.add_argument("--model", help="which model writes (default: the first)")
    return parser.parse_args(args)


async def main(args: list[str]) -> dict[str, object]:
    wanted = read_arguments(args)
    context = Context(get_model(wanted.model))
    context.fill_user(wanted.prompt)
    best = await context.beam_search(wanted.beams, wanted.max_tokens)
    text = context.model.tokenizer.decode(best.tokens)
    send(text)
    return {"text": text, "score": best.score, "tokens": list(best.tokens)}
