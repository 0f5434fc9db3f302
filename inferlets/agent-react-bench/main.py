"""agent-react-bench: an agent with long tool documents, and three ways to be faster that stack."""

import asyncio
from argparse import Namespace

from inferlet import ArgumentParser, Context, Model, max_tokens

TOOL = (
    "The tool `{name}` takes a JSON object with the fields city, date and unit. City is the name "
    "of a town as people write it. Date is a day in the form year-month-day, and not in the past. "
    "Unit is metric or imperial. It answers with a JSON object that has a field value and a field "
    "source. An unknown city gives the field error instead. Never call it more than once for the "
    "same city and date, because each call is paid for. Examples of calls follow.\n"
)
TOOLS = ("weather", "trains", "hotels", "museums", "maps", "events")


def read_arguments(args: list[str]) -> Namespace:
    parser = ArgumentParser("agent-react-bench", "tool calls with stacked optimisations")
    parser.add_argument("--prefix-cache", action="store_true", help="keep the documents' pages")
    parser.add_argument("--concurrent-calls", action="store_true", help="do not wait for a tool")
    parser.add_argument("--drop-tools", action="store_true", help="forget a tool's text after use")
    parser.add_number("--max-tokens", 50, "so many tokens a turn")
    parser.add_number("--delay-ms", 100, "how long a tool takes")
    parser.add_number("--repeat-document", 3, "its length, in times", most=100)
    parser.add_model("which model acts")
    return parser.parse_args(args)


async def call_tool(name: str, delay_ms: int) -> str:
    await asyncio.sleep(delay_ms / 1000)
    return f"\nObservation: {name} says 21."


Places = dict[str, tuple[int, int]]


async def start(model: Model, wanted: Namespace) -> tuple[Context, Places, int]:
    """A context that knows the documents, where each lies in it, how many tokens were imported."""
    context, places, imported = Context(model), {}, 0
    for name in TOOLS:
        begin = len(context.tokens)
        context.fill(TOOL.format(name=name) * wanted.repeat_document)
        places[name] = (begin, len(context.tokens))
    if wanted.prefix_cache:
        imported = await context.import_prefix("agent-react-bench")
        if not imported:
            await context.export_prefix("agent-react-bench")
    return context, places, imported


async def main(args: list[str]) -> dict[str, int]:
    wanted = read_arguments(args)
    context, places, imported = await start(wanted.model, wanted)
    running: list[asyncio.Task[str]] = []
    pages_dropped = moved = 0
    for name in TOOLS:
        context.fill(f"\nAction: {name}")
        await context.generate(wanted.max_tokens, stop=max_tokens(wanted.max_tokens)).collect()
        running.append(asyncio.create_task(call_tool(name, wanted.delay_ms)))
        if not wanted.concurrent_calls:
            context.fill(await running.pop())
        if wanted.drop_tools:
            begin, end = places[name]
            context.mask_tokens(begin - moved, end - moved)
            pages = context.drop_masked_pages()
            pages_dropped, moved = pages_dropped + pages, moved + pages * context.model.page_size
    for reply in await asyncio.gather(*running):
        context.fill(reply)
    context.fill("\nAnswer:")
    await context.generate(wanted.max_tokens, stop=max_tokens(wanted.max_tokens)).collect()
    return {"calls": len(TOOLS), "tokens_imported": imported, "pages_dropped": pages_dropped}
