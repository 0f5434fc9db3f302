"""The scripted guests that the named scenarios launch, by name.

`STEADY` are those whose return value no other instance, limit or fault may change: whoever of them
lives to return must return what it returns alone in a faultless world.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from types import MappingProxyType

import trio

from pie_trio.errors import GuestFault, PieError, TooMany
from pie_trio.messages import Priority, ResourceKind
from pie_trio.testing.constrained import CONSTRAINED
from pie_trio.testing.contracts import CONTRACTS
from pie_trio.testing.fused_guests import FUSED
from pie_trio.testing.guests import KV, Script, ScriptHost, refuse
from pie_trio.testing.line_guests import LINES
from pie_trio.testing.profile_guests import PROFILE
from pie_trio.testing.relatives import RELATIVES
from pie_trio.testing.waits import WAITS
from pie_trio.wasm.host.kvs import KVS
from pie_trio.wasm.host.message import MESSAGE

PROMPT_FIRST = 40  # token ids of prompts


def prompt(number: int, length: int) -> list[int]:
    return [PROMPT_FIRST + (7 * number + 3 * i) % 60 for i in range(length)]


async def decode(guest: ScriptHost) -> str:
    """Which prompt, how long, how many tokens."""
    text = prompt(guest.number(0, 1), guest.number(1, 5))
    count = guest.number(2, 4)
    pages = await guest.allocate(guest.pages_for(len(text) + count))
    found = await guest.generate(pages, text, count)
    await guest.free(pages)
    return json.dumps(found)


async def pipeline(guest: ScriptHost) -> str:
    """Hands on every row by itself, and waits for none before the last."""
    text = prompt(guest.number(0, 2), guest.number(1, 6))
    pages = await guest.allocate(guest.pages_for(len(text)))
    replies = [await guest.submit(pages, [token], place + 1) for place, token in enumerate(text)]
    found = [(await reply.answer()).tokens[0] for reply in replies]
    succeeded = await (await guest.queue.synchronize()).answer()
    await guest.free(pages)
    return json.dumps([found, succeeded])


async def branches(guest: ScriptHost) -> str:
    """Two queues over one prefix, which neither may spoil for the other."""
    text = prompt(guest.number(0, 3), guest.number(1, 6))
    name = f"branch {guest.host.owner.number}"
    pages = await guest.allocate(guest.pages_for(len(text)))
    await guest.token(pages, text, len(text))
    await guest.queue.export(KV, pages, name)
    found = []
    for number in range(2):
        queue = guest.new_queue()
        queue.priority = (Priority.LOW, Priority.HIGH)[number]
        shared = await queue.import_exported(KV, name)
        more = guest.pages_for(len(text) + 4) - len(shared)
        own = shared + (await guest.allocate(more, queue) if more else [])
        found.append(await guest.generate(own, [90 + number], 3, len(text), queue))
        await guest.free(own, queue)
    await guest.queue.release_exported(KV, name)
    await guest.free(pages)
    return json.dumps(found)


async def share(guest: ScriptHost) -> str:
    """A prefix under a name: imported if it is there, else computed and exported for others."""
    number, tail = guest.number(0, 1), guest.number(1, 0)
    text, name = prompt(number, 7), f"prefix {number}"
    try:
        pages = await guest.queue.import_exported(KV, name)
    except PieError:
        pages = await guest.allocate(guest.pages_for(len(text)))
        await guest.token(pages, text, len(text))
        with contextlib.suppress(GuestFault, TooMany):  # somebody else was faster
            await guest.queue.export(KV, pages, name)
    own = pages + await guest.allocate(guest.pages_for(len(text) + 3) - len(pages))
    found = await guest.generate(own, [60 + tail], 3, len(text))
    if guest.text(2, "") == "release":
        with contextlib.suppress(PieError):  # somebody else did
            await guest.queue.release_exported(KV, name)
    await guest.free(own)
    return json.dumps(found)


async def masks(guest: ScriptHost) -> str:
    """Rows that see only parts of what is there, beside one that sees all."""
    text = prompt(guest.number(0, 4), 6)
    pages = await guest.allocate(guest.pages_for(8))
    await guest.token(pages, text, 6)
    narrow = await guest.submit(pages, [70], 7, mask=((0, 2, 4, 7),))
    first = (await narrow.answer()).tokens[0]
    whole = await guest.token(pages, [first], 8)
    await guest.free(pages)
    return json.dumps([first, whole])


async def hog(guest: ScriptHost) -> str:
    """So many pages, for so many milliseconds."""
    taken: list[list[int]] = []
    try:
        for _ in range(guest.number(0, 8)):
            taken.append(await guest.queue.allocate(KV, 1))  # noqa: PERF401
    except PieError:
        pass
    await trio.sleep(guest.number(1, 500) / 1000)
    for pages in taken:
        await guest.free(pages)
    return "gave all back"


async def forge(guest: ScriptHost) -> str:
    """Handles of others, of nobody, and freed ones: each use is refused and changes nothing."""
    own = await guest.allocate(1)
    freed = await guest.allocate(1)
    await guest.free(freed)
    refused = 0
    for handle in [*freed, *range(2, 12), -1, 2**31, 2**32 - 1]:
        for misuse in (
            guest.submit([handle], [66], 1),
            guest.submit([own[0], handle], [66], guest.page_tokens + 1),
            guest.queue.deallocate(KV, [handle]),
            guest.queue.deallocate(KV, [own[0], own[0]]),
            guest.queue.export(KV, [handle], "forged"),
            guest.queue.deallocate(ResourceKind.EMBEDDING, [handle]),
        ):
            try:
                await misuse
            except GuestFault:
                refused += 1
    return json.dumps(refused)


async def embed(guest: ScriptHost) -> str:
    """An embedding written by one pass and read by another."""
    (slot,) = await guest.allocate(1, kind=ResourceKind.EMBEDDING)
    pages = await guest.allocate(guest.pages_for(4))
    first = await guest.submit(pages, [81, 82], 2, embed_outputs=((1, slot),))
    second = await guest.submit(pages, [-1 - slot], 3)
    tokens = [(await reply.answer()).tokens[0] for reply in (first, second)]
    await guest.queue.deallocate(ResourceKind.EMBEDDING, [slot])
    await guest.free(pages)
    return json.dumps(tokens)


async def echo(guest: ScriptHost) -> str:
    """Sends back so many messages of its client."""
    heard: list[str] = []
    for _ in range(guest.number(0, 2)):
        receipt = await guest.call(MESSAGE["receive"])
        try:
            with guest.host.client_wait():
                await receipt.ticket.wait()
            heard.append(receipt.read())
        finally:
            receipt.close()
        await guest.call(MESSAGE["send"], heard[-1])
    return json.dumps(heard)


async def listen(guest: ScriptHost) -> str:
    """So many messages of a topic, in the order in which they come."""
    listener = await guest.call(MESSAGE["subscribe"], guest.text(0, "news"))
    heard: list[str] = []
    try:
        while len(heard) < guest.number(1, 3):
            while not listener.subscription.has_message:
                with guest.host.client_wait():
                    await listener.arrivals.wait()
            heard.append(await guest.call(MESSAGE["[method]subscription.get"], listener))
    finally:
        listener.close()
    return json.dumps(heard)


async def broadcast(guest: ScriptHost) -> str:
    """So many messages to a topic."""
    for number in range(guest.number(1, 3)):
        text = f"{guest.text(2, 'x')} {number}"
        await guest.call(MESSAGE["broadcast"], guest.text(0, "news"), text)
        await trio.sleep(0.01)
    return "said all"


async def keys(guest: ScriptHost) -> str:
    """Writes, reads and deletes keys of its own."""
    mine = f"key of {guest.host.owner.number}"
    for number in range(guest.number(0, 3)):
        await guest.call(KVS["store-set"], mine, str(number))
        await trio.sleep(0.005)
        if await guest.call(KVS["store-get"], mine) != str(number):
            raise refuse("another wrote this key")
    await guest.call(KVS["store-delete"], mine)
    return json.dumps(await guest.call(KVS["store-exists"], mine))


async def chatter(guest: ScriptHost) -> str:
    """So many messages of so many letters to its client."""
    for number in range(guest.number(0, 20)):
        await guest.call(MESSAGE["send"], f"{number} ".ljust(guest.number(1, 100), "."))
    return "said all"


async def tell(guest: ScriptHost) -> str:
    """Chatters, and comes to its end when its client says a word."""
    said = await chatter(guest)
    receipt = await guest.call(MESSAGE["receive"])
    with contextlib.closing(receipt), guest.host.client_wait():
        await receipt.ticket.wait()
    return said


async def spin(guest: ScriptHost) -> str:
    """Computes for so many slices, then does a pass, like a guest that thinks before it speaks."""
    for _ in range(guest.number(0, 8)):
        guest.on_slice()
        await trio.lowlevel.checkpoint()
    return await decode(guest)


async def trap(guest: ScriptHost) -> str:
    """Falls with passes on their way."""
    pages = await guest.allocate(2)
    for place in range(guest.number(0, 3)):
        await guest.submit(pages, [50 + place], place + 1)
    raise refuse("a trap")


async def bomb(guest: ScriptHost) -> str:
    """Makes the host hold more and more for it, until that is refused."""
    for _ in range(10_000):
        guest.host.held.charge("sim-bomb", 1 << 20)
    raise refuse("nobody stopped the bomb")


async def wait(guest: ScriptHost) -> str:
    """Holds a page and waits for a client that need not come."""
    await guest.allocate(1)
    return await echo(guest)


SCRIPTS: Mapping[str, Script] = MappingProxyType(
    {
        "decode": decode,
        "pipeline": pipeline,
        "branches": branches,
        "share": share,
        "masks": masks,
        "hog": hog,
        "forge": forge,
        "embed": embed,
        "echo": echo,
        "listen": listen,
        "broadcast": broadcast,
        "keys": keys,
        "chatter": chatter,
        "tell": tell,
        "spin": spin,
        "trap": trap,
        "bomb": bomb,
        "wait": wait,
        **WAITS,
        **CONTRACTS,
        **LINES,
        **FUSED,
        **PROFILE,
        **CONSTRAINED,
        **RELATIVES,
    }
)
STEADY = frozenset(
    f"sim-{name}"
    for name in (
        *("decode", "pipeline", "branches", "share", "masks", "forge", "embed"),
        *("hog", "broadcast", "keys", "chatter", "spin", "fused"),
        *PROFILE,
        *CONSTRAINED,
    )
)
