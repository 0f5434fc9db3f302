"""The guests of the scripted profile: small ones that touch pages, queues, exports and each other.

Six of them make a run of a few hundred steps: rows handed on one by one, a prefix that one exports
and another extends, two queues beside each other, an intruder. Each returns the same whatever
befalls the others.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import trio

from pie_trio.errors import GuestFault, NoSuchExport, TooMany
from pie_trio.handles import QueueHandle
from pie_trio.testing.guests import KV, Script, ScriptHost

PREFIX = (55, 56, 57, 58)
PREFIX_NAME = "profile prefix"
IMPORT_TRIES = 6
IMPORT_SECONDS = 0.05
FORGED_HANDLES = 10


async def feed(
    guest: ScriptHost,
    pages: Sequence[int],
    text: Sequence[int],
    count: int,
    before: int = 0,
    queue: QueueHandle | None = None,
) -> list[int]:
    """A pass a row, none waited for before the last is on its way; then tokens one by one."""
    total = before + len(text)
    replies = [
        await guest.submit(pages, [token], before + place, queue)
        for place, token in enumerate(text, start=1)
    ]
    found = [(await reply.answer()).tokens[0] for reply in replies][-1:]
    while len(found) < count:
        total += 1
        found.append(await guest.token(pages, found[-1:], total, queue))
    return found


async def rows(guest: ScriptHost) -> str:
    """Which prompt, how many rows, how many tokens."""
    number, length, count = (guest.number(place, 3) for place in range(3))
    pages = await guest.allocate(guest.pages_for(length + count))
    found = await feed(guest, pages, range(number, number + length), count)
    await guest.free(pages)
    return json.dumps(found)


async def owner(guest: ScriptHost) -> str:
    """Exports a prefix while others may already wait for it, and goes on behind it."""
    shared = await guest.allocate(guest.pages_for(len(PREFIX)))
    await feed(guest, shared, PREFIX, 1)
    with contextlib.suppress(GuestFault, TooMany):  # a name that is taken, or no room for one
        await guest.queue.export(KV, shared, PREFIX_NAME)
    found = await _behind_prefix(guest, shared, 7)
    with contextlib.suppress(NoSuchExport):
        await guest.queue.release_exported(KV, PREFIX_NAME)
    return json.dumps(found)


async def reader(guest: ScriptHost) -> str:
    """Goes on behind another's prefix; behind its own, if nobody exports one in time."""
    for attempt in range(1, IMPORT_TRIES + 1):
        try:
            shared = await guest.queue.import_exported(KV, PREFIX_NAME)
            break
        except GuestFault:
            await trio.sleep(IMPORT_SECONDS * attempt)
    else:
        shared = await guest.allocate(guest.pages_for(len(PREFIX)))
        await feed(guest, shared, PREFIX, 1)
    return json.dumps(await _behind_prefix(guest, shared, 9))


async def _behind_prefix(guest: ScriptHost, shared: list[int], token: int) -> list[int]:
    more = guest.pages_for(len(PREFIX) + 3) - len(shared)
    pages = shared + (await guest.allocate(more) if more else [])
    found = await feed(guest, pages, [token], 3, len(PREFIX))
    await guest.free(pages)
    return found


async def twins(guest: ScriptHost) -> str:
    """Two queues, a pass of each under way at the same time."""
    queues = [guest.new_queue(), guest.new_queue()]
    pages = [await guest.allocate(guest.pages_for(6), queue) for queue in queues]
    texts = [[44, 45, 46], [44, 45, 47]]
    for total in range(1, 6):
        replies = [
            await guest.submit(mine, text[total - 1 : total], total, queue)
            for mine, text, queue in zip(pages, texts, queues, strict=True)
        ]
        tokens = [(await reply.answer()).tokens[0] for reply in replies]
        if total >= len(texts[0]):
            for text, token in zip(texts, tokens, strict=True):
                text.append(token)
    for mine, queue in zip(pages, queues, strict=True):
        await guest.free(mine, queue)
    return json.dumps(texts)


async def intruder(guest: ScriptHost) -> str:
    """Writes to and gives back pages that it does not hold; how often it was refused."""
    refused = 0
    for handle in range(FORGED_HANDLES):
        for misuse in (guest.submit([handle], [66], 1), guest.free([handle])):
            try:
                await misuse
            except GuestFault:
                refused += 1
    return json.dumps(refused)


PROFILE: Mapping[str, Script] = MappingProxyType(
    {
        "profile-rows": rows,
        "profile-owner": owner,
        "profile-reader": reader,
        "profile-twins": twins,
        "profile-intruder": intruder,
    }
)
