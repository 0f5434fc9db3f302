"""fused: the model decodes by itself, each piece is shown: `--prompt TEXT --tokens N`."""

from inferlet import ArgumentParser, Context, get_model, max_tokens, send


async def main(args: list[str]) -> None:
    parser = ArgumentParser("fused", "as many tokens as it is told")
    parser.add_argument("--prompt", default="Once upon a time")
    parser.add_argument("--tokens", type=int, default=32)
    wanted = parser.parse_args(args)
    context = Context(get_model())
    context.fill(wanted.prompt)
    answer = context.generate(wanted.tokens, stop=max_tokens(wanted.tokens))
    async for piece in answer.chunks():
        send(piece)
