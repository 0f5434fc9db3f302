"""Scripted guests that hold the product to what it promises them, and fall with a bug if it lies.

Each checks for itself what it was told: the order inside a queue, barriers, branches, copies,
failed passes. A promise that is broken is an `AssertionError`, which climbs as every bug of ours
does; errors by name are part of life and end a script as they end a guest. A script frees all that
it took when it comes to its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pie_trio.messages import Priority
from pie_trio.testing import page_contracts
from pie_trio.testing.checked_guests import (
    PROMPT,
    expected,
    outcome,
    queue_of,
    read_in_vain,
    tidy,
)
from pie_trio.testing.guests import KV, Script, ScriptHost


@tidy
async def order(guest: ScriptHost) -> str:
    """Passes of one queue settle in order, and a barrier waits for all before it."""
    long, short, last = await guest.allocate(2), await guest.allocate(1), await guest.allocate(1)
    guest.queue.priority = Priority.LOW
    first = await guest.submit(long, PROMPT[:6], 6)
    guest.queue.priority = Priority.HIGH
    second = await guest.submit(short, [70], 1)
    barrier = await guest.queue.synchronize()
    third = await guest.submit(last, [71], 1)
    await second.wait()
    assert first.is_filled, "a pass overtook the one before it"
    await barrier.wait()
    assert first.is_filled and second.is_filled, "a barrier did not wait"  # noqa: PT018
    await third.wait()
    succeeded = None not in [await outcome(reply) for reply in (first, second)]
    assert (await barrier.answer()) == succeeded, "a barrier does not know what failed"
    await guest.submit(long, PROMPT[:6], 6)
    barrier = await guest.queue.synchronize()
    behind = await guest.submit(last, [71], 1)
    if await outcome(behind) is not None:
        assert barrier.is_filled, "a pass overtook a barrier"
    for pages in (long, short, last):
        await guest.free(pages)
    return "in order"


@tidy
async def branch(guest: ScriptHost) -> str:
    """A branch of higher priority never runs before the pages that it shares are written."""
    size = guest.page_tokens
    text = [*PROMPT, *PROMPT][: 2 * size]
    trunk, own = await guest.allocate(2), await guest.allocate(1)
    low, high = queue_of(guest, Priority.LOW), queue_of(guest, Priority.HIGH)
    written = await guest.submit(trunk, text, len(text), low)
    read = await guest.submit([*trunk, *own], [72], len(text) + 1, high)
    found = (await outcome(written), await outcome(read))
    if None not in found:
        assert found[1] == await expected(guest, [*text, 72]), "a branch read what was not there"
    await guest.free([*trunk, *own], low)
    return "branched"


@tidy
async def forks(guest: ScriptHost) -> str:
    """Two branches over one half-filled page go on in turns, and neither sees the other's text."""
    text, name = PROMPT[: guest.page_tokens - 1], f"fork {guest.host.owner.number}"
    trunk = await guest.allocate(1)
    await guest.token(trunk, text, len(text))
    await guest.queue.export(KV, trunk, name)
    queues = [guest.new_queue(), guest.new_queue()]
    handles = [await queue.import_exported(KV, name) for queue in queues]
    await guest.queue.release_exported(KV, name)
    contexts = [pages + await guest.allocate(1) for pages in handles]
    for turn in range(2):
        replies = [
            await guest.submit(pages, [80 + 5 * turn + number], len(text) + 1 + turn, queue)
            for number, (queue, pages) in enumerate(zip(queues, contexts, strict=True))
        ]
        tokens = [await outcome(reply) for reply in replies]
        if None in tokens:
            break
        for number, token in enumerate(tokens):
            tail = [80 + 5 * each + number for each in range(turn + 1)]
            alone = await expected(guest, [*text, *tail])
            assert token == alone, "a branch sees another one's text"
    for pages in (trunk, *contexts):
        await guest.free(pages)
    return "forked"


@tidy
async def copies(guest: ScriptHost) -> str:
    """A page that is still to be copied is not rewritten before."""
    text, name = PROMPT[: guest.page_tokens - 1], f"copy {guest.host.owner.number}"
    low, high = queue_of(guest, Priority.LOW), queue_of(guest, Priority.HIGH)
    page = await guest.allocate(1)
    await guest.token(page, text, len(text))
    await guest.queue.export(KV, page, name)
    twin = await guest.queue.import_exported(KV, name)
    await guest.queue.release_exported(KV, name)
    long = await guest.allocate(3)
    await guest.submit(long, PROMPT[:9], min(9, 3 * guest.page_tokens), low)
    copied = await guest.submit(twin, [75], len(text) + 1, low)
    rewritten = await guest.submit(page, [76], 1, high)
    token = await outcome(copied)
    await outcome(rewritten)
    if token is not None:
        assert token == await expected(guest, [*text, 75]), "a copy was made too late"
    for pages in (long, page, twin):
        await guest.free(pages)
    return "copied"


@tidy
async def rewrite(guest: ScriptHost) -> str:
    """A pass reads what was there when it was handed on, whatever is written behind it."""
    pages = await guest.allocate(2)
    text = PROMPT[: guest.page_tokens + 1]
    replies = [
        await guest.submit(pages, text, len(text)),
        await guest.submit(pages, [77], 1),
        await guest.submit(pages, text[1:3], 3),
    ]
    found = [await outcome(reply) for reply in replies]
    wanted = [text, [77], [77, *text[1:3]]]
    for token, told in zip(found, wanted, strict=True):
        if token is not None and None not in found:
            assert token == await expected(guest, told), "a pass read what came after it"
    await guest.free(pages)
    return "rewritten"


@tidy
async def chunks(guest: ScriptHost) -> str:
    """A long masked pass says the same, however it is cut."""
    rows = 2 * guest.page_tokens + 1
    text = [*PROMPT, *PROMPT, *PROMPT][:rows]
    mask = tuple((0, 1) if row < 1 else (0, 1, row, row + 1) for row in range(rows))
    found = []
    for _ in range(2):
        pages = await guest.allocate(guest.pages_for(rows))
        found.append(await outcome(await guest.submit(pages, text, rows, mask=mask)))
        await guest.free(pages)
    singly = await guest.allocate(guest.pages_for(rows))
    token = None
    for row, word in enumerate(text):
        token = await outcome(await guest.submit(singly, [word], row + 1, mask=(mask[row],)))
        if token is None:
            break
    assert token is None or found[0] in (None, token), "a mask was lost on the way"
    await guest.free(singly)
    return "cut"


@tidy
async def failures(guest: ScriptHost) -> str:
    """What builds on a failed pass fails, what it did not write cannot be read, and all goes on."""
    pages, others = await guest.allocate(2), await guest.allocate(2)
    first = await guest.submit(pages, PROMPT[:2], 2)
    second = await guest.submit(pages, [73], 3)
    found = [await outcome(reply) for reply in (first, second)]
    if guest.text(0, "with a barrier") == "with a barrier":
        succeeded = await (await guest.queue.synchronize()).answer()
        assert succeeded == (None not in found), "a barrier does not know what failed"
    if found[0] is None:
        assert found[1] is None, "a pass was built on a failed one"
    if None in found:
        await read_in_vain(guest, pages, 4)
    await guest.free(pages)
    await guest.free(others)
    return "failed well"


CONTRACTS: Mapping[str, Script] = MappingProxyType(
    {
        "order": order,
        "branch": branch,
        "forks": forks,
        "copies": copies,
        "rewrite": rewrite,
        "chunks": chunks,
        "failures": failures,
        "unwritten": page_contracts.unwritten,
        "foreign": page_contracts.foreign,
        "double": page_contracts.double,
        "early": page_contracts.early,
        "throng": page_contracts.crowd,
        "deadline": page_contracts.deadline,
        "lookup": page_contracts.lookup,
        "landmark": page_contracts.landmark,
        "first-of": page_contracts.first_of,
    }
)
