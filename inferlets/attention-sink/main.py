"""attention-sink: writes without end in few pages: it sees its first tokens and its latest ones."""

from argparse import Namespace

from inferlet import ArgumentParser, Context, get_model, max_tokens, send

PROMPT = "Tell me a long story about a ship that sails around the world."


def read_arguments(args: list[str]) -> Namespace:
    parser = ArgumentParser("attention-sink", "writes with an attention sink and a window")
    parser.add_argument("--prompt", default=PROMPT, help="what the user asks")
    parser.add_argument("--sink", type=int, default=64, help="so many first tokens stay seen")
    parser.add_argument("--window", type=int, default=32, help="so many latest tokens stay seen")
    parser.add_argument("--max-tokens", type=int, default=512, help="so many tokens")
    parser.add_argument("--model", help="which model writes (default: the first)")
    return parser.parse_args(args)


async def main(args: list[str]) -> dict[str, object]:
    wanted = read_arguments(args)
    context = Context(get_model(wanted.model))
    context.fill_user(wanted.prompt)
    await context.flush()
    pages_max = 0

    def forget() -> None:
        """What is neither sink nor window is hidden; pages of it that are full are given back."""
        nonlocal pages_max
        stop = len(context.tokens) - wanted.window
        if stop > wanted.sink and answer.tokens:
            context.mask_tokens(wanted.sink, stop)
            context.drop_masked_pages()
        pages_max = max(pages_max, len(context.sequence.pages))

    stop = max_tokens(wanted.max_tokens)
    answer = context.generate(wanted.max_tokens, stop=stop, before_step=forget)
    async for piece in answer:
        send(piece)
    return {"text": answer.text, "tokens": len(answer.tokens), "pages_max": pages_max}
