"""attention-sink: writes without end in few pages: it sees its first tokens and its latest ones."""

from argparse import Namespace

from inferlet import ArgumentParser, Context, max_tokens, send

PROMPT = "Tell me a long story about a ship that sails around the world."


def read_arguments(args: list[str]) -> Namespace:
    parser = ArgumentParser("attention-sink", "writes with an attention sink and a window")
    parser.add_argument("--prompt", default=PROMPT, help="what the user asks")
    parser.add_number("--sink", 64, "so many first tokens stay seen")
    parser.add_number("--window", 32, "so many latest tokens stay seen", least=1)
    parser.add_number("--max-tokens", 512, "so many tokens")
    parser.add_model("which model writes")
    return parser.parse_args(args)


async def main(args: list[str]) -> dict[str, object]:
    wanted = read_arguments(args)
    context = Context(wanted.model)
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
    async for piece in answer.chunks():
        send(piece)
    return {"text": answer.text, "tokens": len(answer.tokens), "pages_max": pages_max}
