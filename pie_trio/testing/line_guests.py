"""Scripted guests that stand in a line for pages: they keep, ask, give up, fall while they wait.

What they take they give back, and hold to account who charges them for more. A page that does not
come is an error by name, and part of life. Moments are told from outside, so that several guests
can meet at one.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType

import trio

from pie_trio.errors import OutOfPages, PieError
from pie_trio.testing.checked_guests import PROMPT, tidy
from pie_trio.testing.guests import KV, Script, ScriptHost, refuse

STEP_SECONDS = 0.002  # less than a batch takes


@tidy
async def keep(guest: ScriptHost) -> str:
    """So many pages, until a moment."""
    pages = await _take(guest)
    await trio.sleep_until(float(guest.text(1, "0")))
    await guest.free(pages)
    return "kept"


@tidy
async def ask(guest: ScriptHost) -> str:
    """For so many pages at a moment, once."""
    await trio.sleep_until(float(guest.text(1, "0")))
    try:
        pages = await _take(guest)
    except OutOfPages:
        return "refused"
    await guest.free(pages)
    return "got them"


async def last_words(guest: ScriptHost) -> str:
    """Takes so many pages, and falls while a pass over some of them is on its way."""
    pages = await _take(guest)
    await trio.sleep_until(float(guest.text(1, "0")))
    rows = min(len(PROMPT), len(pages) * guest.page_tokens)
    await guest.submit(pages, PROMPT[:rows], rows)
    await trio.sleep(STEP_SECONDS)
    raise refuse("its last words")


async def grab(guest: ScriptHost) -> str:
    """Asks over many queues at once for so many pages each, and falls after so many turns."""
    async with trio.open_nursery() as asking:
        for _ in range(guest.host.limits.mailbox):
            asking.start_soon(_take_in_vain, guest)
        for _ in range(guest.number(1, 0)):
            await trio.lowlevel.checkpoint()
        asking.cancel_scope.cancel()
    raise refuse("it wants nothing any more")


async def _take(guest: ScriptHost) -> list[int]:
    guest.on_call(guest.host.owner)
    return await guest.queue.allocate(KV, guest.number(0, 1))


async def _take_in_vain(guest: ScriptHost) -> None:
    with suppress(PieError):
        await guest.new_queue().allocate(KV, guest.number(0, 1))


LINES: Mapping[str, Script] = MappingProxyType(
    {"keep": keep, "ask": ask, "last-words": last_words, "grab": grab}
)
