"""text-completion-py: answers one chat prompt, streaming the text as the model writes it."""

from argparse import Namespace

from inferlet import ArgumentParser, Context, Sampler, send


def read_arguments(args: list[str]) -> Namespace:
    parser = ArgumentParser("text-completion-py", "answers one prompt")
    parser.add_argument("--prompt", required=True, help="what the user asks")
    parser.add_argument("--system", help="the system message")
    parser.add_model("which model answers")
    parser.add_number("--max-tokens", 256, "at most so many tokens")
    parser.add_number("--temperature", 0.0, "0 is greedy")
    parser.add_number("--top-p", None, "the likeliest share of the mass", least=1e-6, most=1)
    parser.add_number("--seed", None, "the same text for the same number", most=2**64 - 1)
    parser.add_number("--repetition-penalty", 1.0, "of tokens of the text", least=0.01, most=100)
    parser.add_number("--frequency-penalty", 0.0, "as often as written", least=-100, most=100)
    parser.add_number("--presence-penalty", 0.0, "once if written", least=-100, most=100)
    return parser.parse_args(args)


async def main(args: list[str]) -> str:
    wanted = read_arguments(args)
    context = Context(wanted.model)
    if wanted.system:
        context.fill_system(wanted.system)
    context.fill_user(wanted.prompt)
    sampler = Sampler(
        wanted.temperature,
        top_p=wanted.top_p,
        seed=wanted.seed,
        repetition_penalty=wanted.repetition_penalty,
        frequency_penalty=wanted.frequency_penalty,
        presence_penalty=wanted.presence_penalty,
    )
    answer = context.generate(wanted.max_tokens, sampler)
    async for piece in answer.chunks():
        send(piece)
    return answer.text
