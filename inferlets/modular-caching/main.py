"""modular-caching: prompt modules, computed once at positions of their own, in any order."""

from argparse import Namespace

from inferlet import ArgumentParser, Context, Model, send

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
    parser.add_model("which model answers")
    return parser.parse_args(args)


async def module(model: Model, name: str) -> tuple[Context, bool]:
    """A module as whole pages, from the cache if they are there; it has seen nothing but itself."""
    context = Context(model)
    tokens = model.tokenizer.encode(MODULES[name])
    filler = model.tokenizer.encode("\n")[-1:]
    tokens += filler * (-len(tokens) % model.page_size + 1)
    start = list(MODULES).index(name) * ROOM
    context.fill_tokens(tokens, positions=range(start, start + len(tokens)))
    imported = await context.import_prefix("modular-caching")
    if not imported:
        await context.export_prefix("modular-caching")
    return context, bool(imported)


async def main(args: list[str]) -> dict[str, object]:
    wanted = read_arguments(args)
    context = Context(wanted.model)
    found = {}
    for name in wanted.modules:
        part, found[name] = await module(context.model, name)
        context.append(part)
    held = context.sequence.held
    # Everything that follows stands behind the places of all modules, taken or not.
    context.fill_tokens(context.model.tokenizer.encode("\n")[-1:], [len(MODULES) * ROOM])
    context.fill_user(wanted.prompt)
    text = await context.generate(wanted.max_tokens).collect()
    send(text)
    return {"from_cache": found, "tokens_composed": held, "text": text}
