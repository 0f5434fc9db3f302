"""Scripted guests that wait wherever a guest can wait, each kind by itself and for a bounded time.

They call the host functions that components call, by the same tables, so that a cancellation meets
the same frames. None of them needs another instance to live: whoever is cancelled, all the others
come to their end.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from types import MappingProxyType
from typing import Any

import trio

from pie_trio.errors import GuestFault, PieError
from pie_trio.testing.deeds import DEEDS, PLAIN_SAMPLER, execute, stream_request
from pie_trio.testing.guests import KV, Script, ScriptHost
from pie_trio.wasm.codec import Err
from pie_trio.wasm.host.common import COMMON
from pie_trio.wasm.host.forward import FORWARD
from pie_trio.wasm.host.generate import GENERATE
from pie_trio.wasm.host.message import MESSAGE
from pie_trio.wasm.host.resources import Model, Queue
from pie_trio.wasm.host.tokenize import TOKENIZE
from pie_trio.wasm.wasi.cli import STDERR, STDOUT
from pie_trio.wasm.wasi.poll import POLL, Deadline, EventPollable
from pie_trio.wasm.wasi.streams import STREAMS

DAWDLING_TURNS = 30
GRASP_SECONDS = 0.05  # of waiting for a page: then it has all that nobody else holds
LONG_TEXT = 1100  # tokens of a text that the host looks at in more than one go


async def first(guest: ScriptHost) -> str:
    """The first use of a model, by the call that is named: perhaps its worker is not there yet."""
    queue = Queue(guest.new_queue(), guest.host)
    guest.host.queues_open += 1
    try:
        await DEEDS[guest.text(0, "allocate")](guest, queue, [])
    except GuestFault:
        return "refused"
    return "done"


async def crowd(guest: ScriptHost) -> str:
    """A call behind so many others that the queue's mailbox is full."""
    queue = Queue(guest.queue, guest.host)
    guest.host.queues_open += 1
    pages = await guest.allocate(6)
    passes = [await execute(guest, queue, pages[:1], 1) for _ in range(2)]
    for page in pages[1:4]:
        await DEEDS["deallocate"](guest, queue, [page])
    try:
        await DEEDS[guest.text(0, "allocate")](guest, queue, pages[4:5])
    except GuestFault:
        return "refused"
    for answer in passes:
        await answer.reply.wait()
    return "done"


async def streams(guest: ScriptHost) -> str:
    """The model decodes by itself; a pass behind the stream waits for its end."""
    queue = Queue(guest.queue, guest.host)
    guest.host.queues_open += 1
    pages = await guest.allocate(3)
    request = stream_request(pages[:1], pages[1:2], guest.number(0, 20))
    stream = await guest.call(GENERATE["start"], queue, request)
    if isinstance(stream, Err):
        return "refused"
    with closing(stream):
        behind = await execute(guest, queue, pages[2:], 1)
        chunk = await guest.call(GENERATE["[method]token-stream.pollable"], stream)
        while await guest.call(GENERATE["[method]token-stream.finished"], stream) is None:
            await guest.call(POLL["[method]pollable.block"], chunk)
            if isinstance(await guest.call(GENERATE["[method]token-stream.read"], stream, 4), Err):
                return "failed"
    await behind.reply.wait()
    await guest.free(pages)
    return "streamed"


async def polls(guest: ScriptHost) -> str:
    """One thing, several things, moments, and things that come in time or never."""
    listener = await guest.call(MESSAGE["subscribe"], f"polls {guest.host.owner.number}")
    receipt = await guest.call(MESSAGE["receive"])
    with closing(listener), closing(receipt):
        return await _poll_all(guest, listener, receipt)


async def _poll_all(guest: ScriptHost, listener: Any, receipt: Any) -> str:
    never, soon = EventPollable(), EventPollable()
    heard = await guest.call(MESSAGE["[method]subscription.pollable"], listener)
    told = await guest.call(MESSAGE["[method]receive-result.pollable"], receipt)
    queue = Queue(guest.queue, guest.host)
    guest.host.queues_open += 1
    answer = await execute(guest, queue, await guest.allocate(1), 1)
    answered = await guest.call(FORWARD["[method]forward-pass-result.pollable"], answer)
    await guest.call(POLL["poll"], [answered, never])
    for things in ([], [never], [heard], [told], [heard, told, never]):
        await guest.call(POLL["poll"], [*things, _after(0.01), _after(0.02)])
    soon.event.set()
    await guest.call(POLL["[method]pollable.block"], soon)
    await guest.call(POLL["[method]pollable.block"], _after(0.01))
    return "polled"


def _after(seconds: float) -> Deadline:
    return Deadline(trio.current_time() + seconds)


async def writes(guest: ScriptHost) -> str:
    """Every way of saying something, more than anybody has room for at once."""
    out, err = await guest.call(STDOUT["get-stdout"]), await guest.call(STDERR["get-stderr"])
    size = guest.number(1, 700)
    for number in range(guest.number(0, 3)):
        await guest.call(STREAMS["[method]output-stream.write"], out, b"word ".ljust(size))
        await guest.call(STREAMS["[method]output-stream.write-zeroes"], err, size)
        await guest.call(MESSAGE["send"], f"{number} ".ljust(size, "."))
        blob = await guest.call(COMMON["[constructor]blob"], b"blob".ljust(size))
        await guest.call(MESSAGE["send-blob"], blob)
    return "written"


async def hand_over(guest: ScriptHost) -> str:
    """One file, after so many milliseconds."""
    await trio.sleep(guest.number(0, 100) / 1000)
    blob = await guest.call(COMMON["[constructor]blob"], b"blob".ljust(600))
    await guest.call(MESSAGE["send-blob"], blob)
    return "handed over"


async def texts(guest: ScriptHost) -> str:
    """Texts so long that another thread reads them."""
    model = Model(next(iter(guest.host.models.values())))
    tokenizer = await guest.call(TOKENIZE["get-tokenizer"], model)
    text = "once upon a time " * guest.number(0, 4)
    tokens = await guest.call(TOKENIZE["[method]tokenizer.tokenize"], tokenizer, text)
    await guest.call(TOKENIZE["[method]tokenizer.get-vocabs"], tokenizer)
    back: str = await guest.call(TOKENIZE["[method]tokenizer.detokenize"], tokenizer, tokens)
    return str(back == text)


async def rows(guest: ScriptHost) -> str:
    """A pass with so many masked rows, and a stream with so long a text, that checks take long."""
    count = guest.number(0, 260)
    queue = Queue(guest.queue, guest.host)
    guest.host.queues_open += 1
    pages = await guest.allocate(guest.pages_for(count))
    answer = await execute(guest, queue, pages, count, masked=True)
    await answer.reply.wait()
    places = list(range(count))
    masked = {
        "tokens": [50 + place % 9 for place in places],
        "positions": places,
        "last-page-len": (count - 1) % guest.page_tokens + 1,
        "mask": [[place + 1] for place in places],
        "sampler": {**PLAIN_SAMPLER, "repetition-penalty": 1.5},
        "earlier": [50 + place % 9 for place in range(LONG_TEXT)],
    }
    request = dict(stream_request(pages, [], 1)) | masked
    stream = await guest.call(GENERATE["start"], queue, request)
    if not isinstance(stream, Err):
        stream.close()
    return str(len(await guest.call(FORWARD["[method]forward-pass-result.get-tokens"], answer)))


async def shout(guest: ScriptHost) -> str:
    """More broadcasts than its own listener has room for, until the listener takes them."""
    topic = f"shouts of {guest.host.owner.number}"
    listener = await guest.call(MESSAGE["subscribe"], topic)

    async def hear() -> None:
        while True:
            await trio.sleep(0.01)
            listener.subscription.take()

    with closing(listener):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear)
            for number in range(guest.number(0, 3)):
                await guest.call(MESSAGE["broadcast"], topic, f"{number}")
            nursery.cancel_scope.cancel()
    return "shouted"


async def dawdle(guest: ScriptHost) -> str:
    """Is awake for many turns after each pass, and makes the next batch wait for it."""
    pages = await guest.allocate(1)
    for place in range(guest.number(0, 3)):
        await guest.token(pages, [50 + place], place + 1)
        for _ in range(DAWDLING_TURNS):
            await trio.lowlevel.checkpoint()
    return "at last"


async def begin_late(guest: ScriptHost) -> str:
    """Waits a while for a message of its client, and holds pages meanwhile."""
    pages = await guest.queue.allocate(KV, 1)
    receipt = await guest.call(MESSAGE["receive"])
    patience = trio.move_on_after(guest.number(0, 500) / 1000)
    with closing(receipt), patience, guest.host.client_wait():
        await receipt.ticket.wait()
    try:
        await guest.free(pages)
    except PieError:
        return "too late"
    return "done"


async def grasp(guest: ScriptHost) -> str:
    """Writes to a page that it holds twice, while it holds all the others."""
    [page] = await guest.allocate(1)
    await guest.token([page], [50], 1)
    name = f"page of {guest.host.owner.number}"
    await guest.queue.export(KV, [page], name)
    await guest.queue.import_exported(KV, name)
    try:
        with trio.move_on_after(GRASP_SECONDS):
            while True:
                await guest.queue.allocate(KV, 1)
        await guest.token([page], [51], 2)
    except PieError:
        return "refused"
    return "rewritten"


WAITS: Mapping[str, Script] = MappingProxyType(
    {
        "first": first,
        "crowd": crowd,
        "polls": polls,
        "streams": streams,
        "writes": writes,
        "hand-over": hand_over,
        "texts": texts,
        "rows": rows,
        "shout": shout,
        "late": begin_late,
        "dawdle": dawdle,
        "grasp": grasp,
    }
)
