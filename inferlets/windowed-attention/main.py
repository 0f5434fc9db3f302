"""windowed-attention: every token sees the first one and a window of the latest."""

from argparse import Namespace

from inferlet import ArgumentParser, Brle, Context, max_tokens, send

PROMPT = "Tell me a long story about a ship that sails around the world."


def read_arguments(args: list[str]) -> Namespace:
    parser = ArgumentParser("windowed-attention", "reads and writes through a window")
    parser.add_argument("--prompt", default=PROMPT, help="how the text begins")
    parser.add_number("--window", 32, "so many latest tokens are seen", least=1)
    parser.add_number("--max-tokens", 512, "so many tokens")
    parser.add_model("which model writes")
    return parser.parse_args(args)


def seen_from(token: int, window: int) -> Brle:
    """The first token and the latest ones, up to this one itself."""
    hidden = max(token - window, 0)
    return Brle([1, hidden, token - hidden] if token else [1])


async def main(args: list[str]) -> dict[str, object]:
    wanted = read_arguments(args)
    context = Context(wanted.model)
    prompt = context.model.tokenizer.encode(wanted.prompt)
    if not prompt:
        raise SystemExit("the prompt has no tokens")
    context.fill_tokens(prompt, rows=[seen_from(i, wanted.window) for i in range(len(prompt))])

    def forget() -> None:
        if answer.tokens:
            context.mask_tokens(1, max(len(context.tokens) - wanted.window, 1))
            context.drop_masked_pages()

    stop = max_tokens(wanted.max_tokens)
    answer = context.generate(wanted.max_tokens, stop=stop, before_step=forget)
    async for piece in answer.chunks():
        send(piece)
    return {"text": answer.text, "pages": len(context.sequence.pages)}
