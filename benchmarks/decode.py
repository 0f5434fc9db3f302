"""One pass a token, greedy, each token sent to the client as text: `--prompt N --tokens N`."""

from inferlet import ArgumentParser, Sampler, get_model, send


async def main(args: list[str]) -> None:
    parser = ArgumentParser("decode", "one pass a token")
    parser.add_argument("--prompt", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=32)
    options = parser.parse_args(args)
    model = get_model()
    queue = model.create_queue()
    greedy = Sampler.greedy()
    tokens = [100 + place % 100 for place in range(options.prompt)]
    forward_pass = queue.forward_pass()  # empty again when executed
    held, pages = 0, []
    for _ in range(options.tokens + 1):
        end = held + len(tokens)
        missing = -(-end // model.page_size) - len(pages)
        if missing:
            pages += queue.allocate_pages(missing)
        forward_pass.kv_cache(pages, (end - 1) % model.page_size + 1)
        forward_pass.input_tokens(tokens, range(held, end))
        forward_pass.output_tokens([len(tokens) - 1], greedy)
        result = await forward_pass.execute()
        held, tokens = end, result.tokens
        send(model.tokenizer.decode(tokens))
