"""One pass a token, greedy, each token sent to the client as text: `--prompt N --tokens N`."""

from inferlet import ArgumentParser, Context, get_model, send


async def main(args: list[str]) -> None:
    parser = ArgumentParser("decode", "one pass a token")
    parser.add_argument("--prompt", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=32)
    options = parser.parse_args(args)
    context = Context(get_model())
    context.fill_tokens([100 + place % 100 for place in range(options.prompt)])
    for _ in range(options.tokens + 1):
        token = await context.decode_step()
        send(context.model.tokenizer.decode([token]))
