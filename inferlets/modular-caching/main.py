"""modular-caching: prompt modules, computed once at positions of their own, in any order."""

from argparse import Namespace

from inferlet import ArgumentParser, Context, Model, send

LABEL = "modular-caching"
MODULES = {
    "style": "You answer in one short sentence, politely and in plain words.",
    "place": "The user is in Vienna, on the bank of the Danube, near the big wheel.",
    "weather": "It rains today, and the wind is strong. Tomorrow the sun will shine.",
    "money": "The user has ten euros. A ride on the wheel costs fourteen euros.",
}
ROOM = 64  # positions for each module; its place does not depend on which others are taken


def known(name: str) -> str:
    if name not in MODULES:
        raise LookupError(name)
    return name


def read_arguments(args: list[str]) -> Namespace:
    parser = ArgumentParser("modular-caching", "composes a prompt of modules that are computed")
    parser.add_list("--modules", "style,place,weather", "which, in which order", known)
    parser.add_argument("--prompt", default="Shall I go on the big wheel now?")
    parser.add_number("--max-tokens", 48, "at most so many tokens")
    parser.add_argument("--invalidate", action="store_true", help="forget these modules and end")
    parser.add_model("which model answers")
    return parser.parse_args(args)


def module(model: Model, name: str) -> Context:
    """A module in whole pages, and one token more; it sees nothing but itself."""
    context = Context(model)
    tokens = model.tokenizer.encode(MODULES[name])
    filler = model.tokenizer.encode("\n")[-1:]
    tokens += filler * (-len(tokens) % model.page_size + 1)
    start = list(MODULES).index(name) * ROOM
    context.fill_tokens(tokens, positions=range(start, start + len(tokens)))
    return context


def compose(context: Context, part: Context) -> None:
    """Whole pages can be followed by others: nothing is computed again."""
    held = part.sequence.held
    context.fill_tokens(part.tokens[:held], part.sequence.positions[:held])
    context.sequence.pages += part.sequence.pages
    context.sequence.held += held


async def main(args: list[str]) -> dict[str, object]:
    wanted = read_arguments(args)
    parts = {name: module(wanted.model, name) for name in wanted.modules}
    if wanted.invalidate:
        return {name: await part.release_prefix(LABEL) for name, part in parts.items()}
    context = Context(wanted.model)
    found = {}
    for name, part in parts.items():
        found[name] = await part.import_prefix(LABEL) > 0
        if not found[name]:
            await part.export_prefix(LABEL)
        compose(context, part)
    held = context.sequence.held
    # Everything that follows stands behind the places of all modules, taken or not.
    context.fill_tokens(context.model.tokenizer.encode("\n")[-1:], [len(MODULES) * ROOM])
    context.fill_user(wanted.prompt)
    text = await context.generate(wanted.max_tokens).collect()
    send(text)
    return {"from_cache": found, "tokens_composed": held, "text": text}
