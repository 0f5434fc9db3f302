"""beam-search: the likeliest text among the best few at every step."""

from argparse import Namespace

from inferlet import ArgumentParser, Context, send


def read_arguments(args: list[str]) -> Namespace:
    parser = ArgumentParser("beam-search", "writes the likeliest of several texts")
    parser.add_argument("--prompt", default="What is the capital of France?", help="the question")
    parser.add_number("--beams", 3, "so many texts at a time", least=1, most=256)
    parser.add_number("--max-tokens", 32, "at most so many tokens")
    parser.add_model("which model writes")
    return parser.parse_args(args)


async def main(args: list[str]) -> dict[str, object]:
    wanted = read_arguments(args)
    context = Context(wanted.model)
    context.fill_user(wanted.prompt)
    best = await context.beam_search(wanted.beams, wanted.max_tokens)
    text = context.model.tokenizer.decode(best.tokens)
    send(text)
    return {"text": text, "score": best.score, "tokens": list(best.tokens)}
