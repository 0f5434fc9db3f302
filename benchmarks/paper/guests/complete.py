"""complete: goes on from a transcript, as a server of plain completions does.

The transcript comes whole each time. With `--open` what an earlier run has saved is not computed
again, with `--save` this one's is kept: a prefix cache whose client even knows what is in it.
"""

import json
from collections.abc import Callable

from inferlet import ArgumentParser, Context, get_model, kvs, max_tokens

Fill = Callable[[str], None]


async def main(args: list[str]) -> str:
    parser = ArgumentParser("complete", "goes on from a transcript")
    parser.add_argument("--parts", required=True, help="JSON: pairs of a role and a text")
    parser.add_argument("--max-tokens", type=int, default=16)
    parser.add_argument("--no-stop", action="store_true", help="exactly so many tokens")
    parser.add_argument("--open", help="go on from what was saved under this name, if it is there")
    parser.add_argument("--save", help="keep it all under this name")
    wanted = parser.parse_args(args)
    parts = json.loads(wanted.parts)
    context = await Context.open(get_model(), wanted.open) if wanted.open else None
    known = int(kvs.get(f"parts/{wanted.open}") or 0) if context else 0
    context = context or Context(get_model())
    fill: dict[str, Fill] = {
        "system": context.fill_system,
        "user": context.fill_user,
        "text": context.fill,
    }
    for role, text in parts[known:]:
        fill[role](text)
    until = max_tokens(wanted.max_tokens) if wanted.no_stop else None
    answer = await context.generate(wanted.max_tokens, stop=until).collect()
    if wanted.save:
        await context.save(wanted.save)
        kvs.put(f"parts/{wanted.save}", str(len(parts) + 1))
    return answer
