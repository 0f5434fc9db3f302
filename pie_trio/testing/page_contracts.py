"""Scripted guests that hold the product to what it promises of pages: whose they are, and when.

They name pages that are nobody's or another's, read what nobody wrote, export early, hold pages
for as long as others are willing to wait. A broken promise is an `AssertionError`; errors by name
are part of life and end a script as they end a guest.
"""

from __future__ import annotations

import trio

from pie_trio.errors import GuestFault, OutOfPages, PieError
from pie_trio.testing.checked_guests import PROMPT, read_in_vain, tidy
from pie_trio.testing.guests import KV, ScriptHost
from pie_trio.wasm.host.message import MESSAGE
from pie_trio.wasm.wasi.poll import POLL, Deadline

PATIENCE_SECONDS = 60.0


@tidy
async def unwritten(guest: ScriptHost) -> str:
    """Nobody reads what the last owner of a page left in it."""
    for _ in range(2):
        pages = await guest.allocate(3)
        for page in pages:
            await read_in_vain(guest, [page], guest.page_tokens)
        await guest.token(pages, PROMPT[: guest.page_tokens], guest.page_tokens)
        await guest.free(pages)
        await (await guest.queue.synchronize()).wait()
    return "read nothing"


@tidy
async def foreign(guest: ScriptHost) -> str:
    """Numbers that were never given to this guest are nobody's."""
    own = await guest.allocate(1)
    for handle in (*range(4, 12), 2**20):
        for misuse in (
            guest.submit([handle], [66], 1),
            guest.queue.deallocate(KV, [handle]),
            guest.queue.export(KV, [handle], "forged"),
        ):
            try:
                await misuse
            except GuestFault:
                continue
            raise AssertionError("a foreign page was taken")
    await guest.free(own)
    return "took nothing"


@tidy
async def double(guest: ScriptHost) -> str:
    """A page that is named twice is refused."""
    own = await guest.allocate(2)
    try:
        await guest.queue.deallocate(KV, [own[0], own[0]])
    except GuestFault:
        await guest.free(own)
        return "refused"
    raise AssertionError("a page was given up twice")


async def early(guest: ScriptHost) -> str:
    """Exports what a pass still writes: hidden until that has settled."""
    name = f"early {guest.host.owner.number}"
    pages = await guest.allocate(guest.pages_for(6))
    for _ in range(4):
        await guest.submit(pages, PROMPT[:6], 6)
        await guest.queue.export(KV, pages, name)
        await guest.queue.release_exported(KV, name)
        pages = await guest.allocate(guest.pages_for(6))
    return "exported"


@tidy
async def crowd(guest: ScriptHost) -> str:
    """Takes as many pages as it is told, one by one, and gives them back after a while."""
    taken: list[int] = []
    try:
        for _ in range(guest.number(0, 6)):
            taken += await guest.queue.allocate(KV, guest.number(2, 1))
            await trio.sleep(guest.number(1, 5) / 1000)
    except OutOfPages:
        pass
    await guest.free(taken)
    await (await guest.queue.synchronize()).wait()
    return "gave all back"


@tidy
async def deadline(guest: ScriptHost) -> str:
    """Holds nearly everything for exactly as long as others are willing to wait."""
    taken: list[int] = []
    try:
        while len(taken) < guest.queue.model.facts.pages - 1:
            taken += await guest.queue.allocate(KV, 1)
    except OutOfPages:
        pass
    await trio.sleep(guest.host.limits.page_wait_seconds)
    await guest.free(taken)
    return "held"


async def lookup(guest: ScriptHost) -> str:
    """What was exported before its worker died is lost by name, not unknown."""
    await guest.allocate(1)
    for _ in range(20):
        try:
            await guest.queue.import_exported(KV, guest.text(0, "landmark"))
            return "there"
        except PieError:
            await trio.sleep(0.05)
    return "not there"


async def landmark(guest: ScriptHost) -> str:
    """Leaves an export behind, for ever."""
    pages = await guest.allocate(1)
    await guest.token(pages, PROMPT[:2], 2)
    try:
        await guest.queue.export(KV, pages, guest.text(0, "landmark"))
    except PieError:
        await guest.free(pages)
    return "left"


async def first_of(guest: ScriptHost) -> str:
    """Of an answer that never comes and a clock, the clock is first; of two passes, either."""
    never = await guest.call(MESSAGE["receive"])
    pollable = await guest.call(MESSAGE["[method]receive-result.pollable"], never)
    pages = await guest.allocate(1)
    reply = await guest.submit(pages, PROMPT[:2], 2)
    clock = Deadline(trio.current_time() + 0.5)
    with trio.move_on_after(PATIENCE_SECONDS) as patience:
        ready = await guest.call(POLL["poll"], [pollable, clock])
        assert ready == [1], "a clock was not heard"
        await reply.wait()
    assert not patience.cancelled_caught, "a guest waits for a time that has long passed"
    never.close()
    await guest.free(pages)
    return "waited"
