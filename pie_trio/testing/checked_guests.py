"""What scripted guests check promises with: fresh pages to compare with, and an account at the end.

Whoever gave everything back holds nothing: `tidy` looks at its return. A promise that is broken is
an `AssertionError`, which climbs as every bug of ours does. Nothing here owns anything.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from pie_trio.errors import GuestFault, PassFailed
from pie_trio.handles import QueueHandle
from pie_trio.mailbox import Reply
from pie_trio.messages import PassResult, Priority
from pie_trio.services.page_pool import Tenancy
from pie_trio.testing.guests import Script, ScriptHost

PROMPT = (41, 47, 53, 44, 60, 71, 42, 58, 49, 66, 45, 50)


def tidy(script: Callable[[ScriptHost], Awaitable[str]]) -> Script:
    """Whoever gave everything back is charged for nothing."""

    async def checked(guest: ScriptHost) -> str:
        value = await script(guest)
        for tenancy in tenancies(guest):
            assert not tenancy.pages, "a guest is charged for pages that it was never given"
        return value

    return checked


def tenancies(guest: ScriptHost) -> Iterator[Tenancy]:
    for model in guest.host.models.values():
        residences: Any = getattr(model, "scope").residences  # noqa: B009
        for residence in residences.values():
            yield from residence.lease.tenancies.values()


async def outcome(reply: Reply[PassResult]) -> int | None:
    """The token of a pass; none if it failed."""
    try:
        return (await reply.answer()).tokens[0]
    except PassFailed:
        return None


async def expected(guest: ScriptHost, text: Sequence[int]) -> int:
    """The token behind a text, on pages that nobody else ever saw."""
    pages = await guest.allocate(guest.pages_for(len(text)))
    token = await guest.token(pages, text, len(text))
    await guest.free(pages)
    return token


def queue_of(guest: ScriptHost, priority: Priority) -> QueueHandle:
    queue = guest.new_queue()
    queue.priority = priority
    return queue


async def read_in_vain(guest: ScriptHost, pages: Sequence[int], total: int) -> None:
    try:
        await guest.submit(pages, [74], total)
    except GuestFault:
        return
    raise AssertionError("a slot that nobody wrote was read")
