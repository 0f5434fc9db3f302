"""hierarchical-attention: a tree of texts in one pass: a text sees itself and its children's."""

import xml.etree.ElementTree as xml
from argparse import Namespace

from inferlet import ArgumentParser, Brle, Context, send

DOCUMENT = (
    "<town>The town lies at a river.<school>The school has a red roof.</school>"
    "<market>The market opens at nine.<baker>The baker sells bread.</baker></market></town>"
)


def read_arguments(args: list[str]) -> Namespace:
    parser = ArgumentParser("hierarchical-attention", "reads a tree under a mask of its own")
    parser.add_argument("--document", default=DOCUMENT, help="nested elements with text")
    parser.add_argument("--question", default="Question: What lies at a river? Answer: The")
    parser.add_number("--max-tokens", 16, "at most so many tokens")
    parser.add_model("which model answers")
    return parser.parse_args(args)


def read(context: Context, node: xml.Element) -> range:
    """Adds children first, so that a parent can see them. Returns where the node's text lies."""
    children = [read(context, child) for child in node]
    tokens = context.model.tokenizer.encode(f"{node.tag}: {(node.text or '').strip()}\n")
    place = range(len(context.tokens), len(context.tokens) + len(tokens))
    row = Brle().extend(place.start, masked=True)
    for child in children:
        row = row.mask_range(child.start, child.stop, masked=False)
    context.fill_tokens(tokens, rows=[row.extend(i) for i in range(len(tokens))])
    return place


async def main(args: list[str]) -> dict[str, object]:
    wanted = read_arguments(args)
    context = Context(wanted.model)
    try:
        root = read(context, xml.fromstring(wanted.document))
    except (xml.ParseError, RecursionError) as wrong:
        raise SystemExit(f"bad document: {wrong}") from None
    context.fill(wanted.question)
    text = await context.generate(wanted.max_tokens).collect()
    send(text)
    return {"tokens": root.stop, "text": text}
