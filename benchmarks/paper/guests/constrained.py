"""constrained: as many tokens as it is told, under a constraint that is not complete sooner."""

from inferlet import ArgumentParser, Constraint, Context, get_model, max_tokens, send

ITEM = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
GRAMMAR = r"""
start: "[" (object ", ")* "]" "."~1000
object: "{" pair (", " pair)* "}"
pair: STRING ": " (STRING | NUMBER | object)
STRING: /"[a-zA-Z0-9 .,'!?-]*"/
NUMBER: /-?(0|[1-9][0-9]*)/
"""


async def main(args: list[str]) -> None:
    parser = ArgumentParser("constrained", "as many tokens as it is told")
    parser.add_argument("--kind", default="free", help="free, regex, schema or lark")
    parser.add_argument("--tokens", type=int, default=32)
    wanted = parser.parse_args(args)
    model = get_model()
    context = Context(model)
    context.fill_user("Tell me about three people, as a JSON list.")
    constraint = None
    if wanted.kind == "regex":
        constraint = Constraint.regex(model, "[A-Za-z ,]{2000}")
    elif wanted.kind == "schema":
        listed = {"type": "array", "items": ITEM, "minItems": 500}
        constraint = Constraint.json_schema(model, listed)
    elif wanted.kind == "lark":
        constraint = Constraint.lark(model, GRAMMAR)
    stop = max_tokens(wanted.tokens)
    answer = context.generate(wanted.tokens, stop=stop, constraint=constraint)
    async for piece in answer.chunks():
        send(piece)
