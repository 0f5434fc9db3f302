"""constrained-decoding: text that a grammar or a regular expression allows, and no other."""

from argparse import Namespace

from inferlet import ArgumentParser, Constraint, Context, Model, Sampler, send

JSON_GRAMMAR = r"""
start: object
?value: object | array | STRING | NUMBER | "true" | "false" | "null"
object: "{" [pair (", " pair)*] "}"
pair: STRING ": " value
array: "[" [value (", " value)*] "]"
STRING: /"[a-zA-Z0-9 .,'!?-]*"/
NUMBER: /-?(0|[1-9][0-9]*)(\.[0-9]+)?/
"""


def read_arguments(args: list[str]) -> Namespace:
    parser = ArgumentParser("constrained-decoding", "writes what a grammar allows")
    parser.add_argument("--prompt", default="Describe yourself as a JSON object.", help="the task")
    parser.add_argument("--lark", default=JSON_GRAMMAR, help="a Lark grammar (default: JSON)")
    parser.add_argument("--regex", help="a regular expression in its place")
    parser.add_number("--temperature", 0.0, "0: the likeliest")
    parser.add_number("--seed", None, "the same seed, the same text", most=2**64 - 1)
    parser.add_number("--max-tokens", 128, "at most so many tokens")
    parser.add_model("which model writes")
    return parser.parse_args(args)


def read_constraint(model: Model, wanted: Namespace) -> Constraint:
    try:
        if wanted.regex is not None:
            return Constraint.regex(model, wanted.regex)
        return Constraint.lark(model, wanted.lark)
    except ValueError as wrong:
        raise SystemExit(f"bad grammar: {wrong}") from None


async def main(args: list[str]) -> dict[str, object]:
    wanted = read_arguments(args)
    context = Context(wanted.model)
    constraint = read_constraint(context.model, wanted)
    context.fill_user(wanted.prompt)
    sampler = Sampler(wanted.temperature, seed=wanted.seed)
    answer = context.generate(wanted.max_tokens, sampler, constraint=constraint)
    async for piece in answer.chunks():
        send(piece)
    return {"text": answer.text, "is_complete": constraint.is_complete(answer.tokens)}
