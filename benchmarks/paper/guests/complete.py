"""complete: goes on from a transcript, as a server of plain completions does.

The transcript comes whole each time. With `--cache` the longest beginning of it that is kept is not
computed again, and what is computed now is kept, with its answer: a prefix cache that never misses
because a text could be cut into other tokens, since it goes by the parts of the transcript.
"""

import hashlib
import json
from collections.abc import Callable, Sequence

from inferlet import ArgumentParser, Context, get_instance_id, get_model, kvs, max_tokens

Fill = Callable[[str], None]


async def main(args: list[str]) -> str:
    parser = ArgumentParser("complete", "goes on from a transcript")
    parser.add_argument("--parts", required=True, help="JSON: pairs of a role and a text")
    parser.add_argument("--max-tokens", type=int, default=16, help="0: keep what there is")
    parser.add_argument("--no-stop", action="store_true", help="exactly so many tokens")
    parser.add_argument("--cache", help="keep all under this name, and go on from what is kept")
    wanted = parser.parse_args(args)
    parts = json.loads(wanted.parts)
    context, known = await open_longest(wanted.cache, parts)
    fill: dict[str, Fill] = {
        "system": context.fill_system,
        "user": context.fill_user,
        "text": context.fill,
    }
    for role, text in parts[known:]:
        fill[role](text)
    answer = ""
    if wanted.max_tokens:
        until = max_tokens(wanted.max_tokens) if wanted.no_stop else None
        answer = await context.generate(wanted.max_tokens, stop=until).collect()
        parts.append(["text", answer])
    if wanted.cache:
        await keep(context, name_of(wanted.cache, parts))
    return answer


async def open_longest(cache: str | None, parts: Sequence[Sequence[str]]) -> tuple[Context, int]:
    """A context with the longest beginning that is kept, and how many parts that has."""
    for count in range(len(parts) if cache else 0, 0, -1):
        kept = kvs.get(name_of(str(cache), parts[:count]))
        context = await Context.open(get_model(), kept) if kept else None
        if context is not None:
            return context, count
    return Context(get_model()), 0


async def keep(context: Context, name: str) -> None:
    """Under a name of its own: somebody else may keep the same at the same time."""
    if kvs.get(name) is None:
        own = f"{name}/{get_instance_id()}"
        await context.save(own)
        kvs.put(name, own)


def name_of(cache: str, parts: Sequence[Sequence[str]]) -> str:
    return f"{cache}/{hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()}"
