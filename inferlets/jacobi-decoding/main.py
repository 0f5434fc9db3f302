"""jacobi-decoding: guesses several tokens ahead and lets every pass mend all guesses at once."""

from argparse import Namespace

from inferlet import ArgumentParser, Context, any_of, max_tokens, send, stop_tokens


def read_arguments(args: list[str]) -> Namespace:
    parser = ArgumentParser("jacobi-decoding", "writes several tokens a pass, and the same text")
    parser.add_argument("--prompt", default="Count from one to twenty.", help="the question")
    parser.add_number("--guesses", 5, "so many tokens ahead", most=256)
    parser.add_number("--max-tokens", 64, "at most so many tokens")
    parser.add_model("which model writes")
    return parser.parse_args(args)


async def main(args: list[str]) -> dict[str, object]:
    wanted = read_arguments(args)
    context = Context(wanted.model)
    context.fill_user(wanted.prompt)
    await context.flush()
    stop = any_of(stop_tokens(context.model.stop_tokens()), max_tokens(wanted.max_tokens))
    written: list[int] = []
    guesses: list[int] = []
    passes, hidden = 0, stop.ask(written)
    while hidden is None:
        guesses += [context.tokens[-1]] * (wanted.guesses - len(guesses))
        verified = await context.verify(guesses)
        passes += 1
        # What the model says behind a wrong guess is the next guess for that place.
        guesses = verified.rest[: wanted.guesses]
        for token in verified.tokens:
            written.append(token)
            hidden = stop.ask(written)
            if hidden is not None:
                break
    text = context.model.tokenizer.decode(written[: len(written) - hidden])
    send(text)
    return {"text": text, "tokens": len(written), "passes": passes}
