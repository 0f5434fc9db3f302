"""constrained-decoding: text that a grammar or a regular expression allows, and no other."""

from argparse import Namespace

from inferlet import ArgumentParser, Constraint, Context, Model, Sampler, get_model, send

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
    parser.add_argument("--temperature", type=float, default=0.0, help="0: the likeliest")
    parser.add_argument("--seed", type=int, help="the same seed, the same text")
    parser.add_argument("--max-tokens", type=int, default=128, help="at most so many tokens")
    parser.add_argument("--model", help="which model writes (default: the first)")
    return parser.parse_args(args)


def read_constraint(model: Model, wanted: Namespace) -> Constraint:
    if wanted.regex:
        return Constraint.regex(model, wanted.regex)
    return Constraint.lark(model, wanted.lark)


async def main(args: list[str]) -> dict[str, object]:
    wanted = read_arguments(args)
    context = Context(get_model(wanted.model))
    constraint = read_constraint(context.model, wanted)
    context.fill_user(wanted.prompt)
    sampler = Sampler(wanted.temperature, seed=wanted.seed)
    answer = context.generate(wanted.max_tokens, sampler, constraint=constraint)
    async for piece in answer:
        send(piece)
    return {"text": answer.text, "is_complete": constraint.is_complete(answer.tokens)}
