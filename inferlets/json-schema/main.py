"""json-schema: JSON that a schema describes, whatever the model would rather say."""

import json
from argparse import Namespace

from inferlet import ArgumentParser, Constraint, Context, Sampler, send

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[A-Z][a-z]{1,15}$"},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "hobbies": {
            "type": "array",
            "items": {"enum": ["chess", "music", "sport", "books"]},
            "minItems": 1,
            "maxItems": 3,
        },
    },
    "required": ["name", "age", "hobbies"],
    "additionalProperties": False,
}


def read_arguments(args: list[str]) -> Namespace:
    parser = ArgumentParser("json-schema", "writes JSON that a schema describes")
    parser.add_argument("--prompt", default="Invent a person.", help="the task")
    parser.add_argument("--schema", default=json.dumps(PERSON), help="a JSON schema")
    parser.add_number("--temperature", 0.0, "0: the likeliest")
    parser.add_number("--seed", None, "the same seed, the same text", most=2**64 - 1)
    parser.add_number("--max-tokens", 256, "at most so many tokens")
    parser.add_model("which model writes")
    return parser.parse_args(args)


async def main(args: list[str]) -> dict[str, object]:
    wanted = read_arguments(args)
    context = Context(wanted.model)
    try:
        constraint = Constraint.json_schema(context.model, wanted.schema)
    except ValueError as wrong:
        raise SystemExit(f"bad schema: {wrong}") from None
    context.fill_user(wanted.prompt)
    sampler = Sampler(wanted.temperature, seed=wanted.seed)
    answer = context.generate(wanted.max_tokens, sampler, constraint=constraint)
    async for piece in answer.chunks():
        send(piece)
    if not constraint.is_complete(answer.tokens):
        return {"cut_off": answer.text}
    return {"value": json.loads(answer.text)}
