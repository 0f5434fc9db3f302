"""A scripted guest that writes under a grammar, by a stream and by passes, and compares.

What it reads must be a beginning of a text of its grammar at every moment, judged by expressions of
its own; at the end both ways have said the same. Errors by name end it, as they end a guest; but a
worker that was not taught, or a text that its own grammar forbids, is a bug of ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from pie_trio.testing.guests import Script, ScriptHost, refuse
from pie_trio.wasm.codec import Err
from pie_trio.wasm.host.common import COMMON
from pie_trio.wasm.host.constraint import CONSTRAINTS
from pie_trio.wasm.host.forward import FORWARD
from pie_trio.wasm.host.generate import GENERATE
from pie_trio.wasm.host.resources import Model, Queue

# How a grammar is written, and as expressions what a text is and what every beginning of one is.
GRAMMARS: Final = (
    ("regex", "(ab|cd){2,9}e", "(ab|cd){2,9}e", "(ab|cd)*[ace]?"),
    (
        "lark",
        'start: /[f-h]{4}/ ("-" /[f-h]{4}/)~0..3 "!"',
        "[f-h]{4}(-[f-h]{4}){0,3}!",
        "[f-h-]*!?",
    ),
    ("json-schema", '{"type": "string", "pattern": "^x+y$"}', '"x+y"', '("x*y?)?"?'),
)
TOKENS_MAX: Final = 24
BYTES: Final = 256  # tokens of the pretend model that are text
PROMPT: Final = (60, 61, 62)
SAMPLER: Final[Mapping[str, Any]] = {
    "temperature": 0.0,
    **dict.fromkeys(("top-k", "top-p", "min-p", "seed", "logprobs")),
    **dict.fromkeys(("repetition-penalty", "frequency-penalty", "presence-penalty")),
    "logit-bias": [],
}


async def constrained(guest: ScriptHost) -> str:
    """Which grammar; whether it drops a stream half way before it begins again."""
    kind, source, whole, beginning = GRAMMARS[guest.number(0, 0)]
    handle = next(iter(guest.host.models.values()))
    queue = await guest.call(COMMON["[method]model.create-queue"], Model(handle))
    constraint = good(
        await guest.call(CONSTRAINTS[f"[static]constraint.{kind}"], Model(handle), source)
    )
    if guest.text(1, "") == "drop":
        await stream(guest, queue, constraint, beginning, read_max=2)
    text, reason = await stream(guest, queue, constraint, beginning)
    if reason == "stop":
        assert re.fullmatch(whole, text), f"{text!r} is complete, and not of its grammar"
    again, is_closed = await by_passes(guest, queue, constraint)
    assert text == again, f"a stream wrote {text!r}, passes wrote {again!r}"
    assert (reason == "stop") == is_closed, f"a stream that is complete ended by {reason}"
    constraint.close()
    queue.close()
    return text


async def stream(
    guest: ScriptHost, queue: Queue, constraint: Any, beginning: str, read_max: int = TOKENS_MAX
) -> tuple[str, str]:
    """What it wrote, and why it ended; at most so many tokens are read before it is dropped."""
    follower = good(await guest.call(CONSTRAINTS["[method]constraint.matcher"], constraint))
    total = len(PROMPT) + TOKENS_MAX
    pages = await guest.allocate(guest.pages_for(total))
    used = guest.pages_for(len(PROMPT))
    request = {
        "tokens": list(PROMPT),
        "positions": list(range(len(PROMPT))),
        "pages": pages[:used],
        "last-page-len": (len(PROMPT) - 1) % guest.page_tokens + 1,
        "reserve": pages[used:],
        "mask": None,
        "sampler": SAMPLER,
        "stop-tokens": [],
        "stop-sequences": [],
        "max-tokens": TOKENS_MAX,
        "earlier": [],
        "generated": [],
    }
    started = good(await guest.call(CONSTRAINTS["start"], queue, request, follower))
    follower.close()
    pollable = await guest.call(GENERATE["[method]token-stream.pollable"], started)
    found: list[int] = []
    while len(found) < read_max:
        await pollable.wait()
        new = good(await guest.call(GENERATE["[method]token-stream.read"], started, 64))
        if not new:
            break
        found += new
        assert re.fullmatch(beginning, text_of(found)), f"{text_of(found)!r} begins no text"
    reason = await guest.call(GENERATE["[method]token-stream.finished"], started)
    started.close()
    await guest.free(pages, queue.handle)
    return text_of(found), str(reason)


async def by_passes(guest: ScriptHost, queue: Queue, constraint: Any) -> tuple[str, bool]:
    """What passes write, and whether nothing but an end may follow it."""
    follower = good(await guest.call(CONSTRAINTS["[method]constraint.matcher"], constraint))
    pages = await guest.allocate(guest.pages_for(len(PROMPT) + TOKENS_MAX))
    found, new, is_closed = list[int](), list(PROMPT), False
    while not is_closed and len(found) < TOKENS_MAX:
        total = len(PROMPT) + len(found)
        builder = await guest.call(FORWARD["create-forward-pass"], queue)
        positions = list(range(total - len(new), total))
        await guest.call(FORWARD["input-tokens"], builder, new, positions)
        used, last = guest.pages_for(total), (total - 1) % guest.page_tokens + 1
        await guest.call(FORWARD["kv-cache"], builder, pages[:used], last)
        await guest.call(FORWARD["output-tokens"], builder, [len(new) - 1], 0.0)
        good(await guest.call(CONSTRAINTS["restrict"], builder, len(new) - 1, follower))
        answer = await guest.call(FORWARD["[method]forward-pass.execute"], builder)
        await answer.reply.wait()
        new = list(await guest.call(FORWARD["[method]forward-pass-result.get-tokens"], answer))
        found += new
        answer.close()
        moved = await guest.call(CONSTRAINTS["[method]matcher.advance"], follower, new)
        assert not isinstance(moved, Err), (
            f"a pass drew what its grammar forbids: {text_of(found)!r}"
        )
        is_closed = moved
    follower.close()
    await guest.free(pages, queue.handle)
    return text_of(found), is_closed


def good(answer: Any) -> Any:
    """A refusal ends the guest, but for those that must never come."""
    if isinstance(answer, Err):
        why = str(answer.payload)
        assert "not told" not in why, "a worker was not taught the grammar that a pass names"
        assert "constraint:" not in why, f"a worker refuses a text of its own making: {why}"
        raise refuse(why)
    return answer


def text_of(tokens: list[int]) -> str:
    return "".join(chr(token) for token in tokens if token < BYTES)


CONSTRAINED: Mapping[str, Script] = MappingProxyType({"constrained": constrained})
