"""Scripted guests that start children and ask other hosts, each way by itself, in bounded time.

They call the functions that components call. Whoever is let go of must be gone in time; a promise
that is broken is an `AssertionError`, which climbs as every bug of ours does. Whatever befalls a
child or a request is an outcome for its parent, and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from types import MappingProxyType
from typing import Any, Final

import trio

from pie_trio.testing.guests import KV, Script, ScriptHost
from pie_trio.wasm.codec import Err
from pie_trio.wasm.host.child import CHILD, Process
from pie_trio.wasm.host.fetch import FETCH
from pie_trio.wasm.host.message import MESSAGE
from pie_trio.wasm.wasi.cli import STDOUT
from pie_trio.wasm.wasi.poll import POLL, Deadline
from pie_trio.wasm.wasi.streams import STREAMS

GONE_SECONDS: Final = 5.0  # virtual: for one that was let go of
URLS: Final = (
    *("http://web.sim/moved", "http://inside.sim/", "http://web.sim/away"),
    *("http://other.sim/", "http://nobody.sim/", "http://web.sim/"),
)


async def parent(guest: ScriptHost) -> str:
    """Children: one computes, one talks, one is late, one is cancelled, one is let go of."""
    outcomes = [await _outcome_of(guest, "sim-decode", "1", "4", "3")]
    outcomes.append(await _talk(guest))
    outcomes.append(await _outcome_of(guest, "sim-stay", deadline_ms=20))
    outcomes.append(await _cancel(guest))
    await _let_go(guest)
    return json.dumps(outcomes)


async def _outcome_of(
    guest: ScriptHost, program: str, *arguments: str, deadline_ms: int | None = None
) -> str:
    process = await guest.call(CHILD["start"], program, arguments, deadline_ms)
    if isinstance(process, Err):
        return str(process.payload.tag)
    with closing(process):
        return await _wait_for(guest, process)


async def _wait_for(guest: ScriptHost, process: Process) -> str:
    pollable = await guest.call(CHILD["[method]process.pollable"], process)
    while (found := await guest.call(CHILD["[method]process.outcome"], process)) is None:
        await guest.call(POLL["[method]pollable.block"], pollable)
        await guest.call(CHILD["[method]process.receive"], process)
    _check_gone(guest, process)
    return found.payload.tag if isinstance(found, Err) else str(found)


async def _talk(guest: ScriptHost) -> str:
    """It says more than there is room for, and then waits for a word."""
    process = await guest.call(CHILD["start"], "sim-talker", ("3",), None)
    if isinstance(process, Err):
        return str(process.payload.tag)
    with closing(process):
        await trio.sleep(0.01)
        await guest.call(CHILD["[method]process.send"], process, "a word")
        return await _wait_for(guest, process)


async def _cancel(guest: ScriptHost) -> str:
    process = await guest.call(CHILD["start"], "sim-stay", (), None)
    if isinstance(process, Err):
        return str(process.payload.tag)
    with closing(process):
        await trio.sleep(0.01)
        await guest.call(CHILD["[method]process.cancel"], process, "enough")
        return await _wait_for(guest, process)


async def _let_go(guest: ScriptHost) -> None:
    process = await guest.call(CHILD["start"], "sim-stay", (), None)
    if isinstance(process, Err):
        return
    with closing(process):
        await trio.sleep(0.01)
    with trio.move_on_after(GONE_SECONDS):
        await process.child.ended.wait()
    assert process.child.ended.is_filled, "a child that was let go of lives on"
    _check_gone(guest, process)


def _check_gone(guest: ScriptHost, process: Process) -> None:
    """Its outcome can be seen, so its pages are back."""
    child: Any = process.child
    number = child._instance.owner.number
    for model in guest.host.models.values():
        generation = getattr(model, "model").generation  # noqa: B009
        pools = () if generation is None else generation.manager.pools.values()
        for pool in pools:
            assert number not in pool._tenancies, "an outcome is told before the pages are back"


async def talker(guest: ScriptHost) -> str:
    """A child that says so much to its parent, prints, and waits for a word."""
    pages = await guest.queue.allocate(KV, 1)
    stdout = await guest.call(STDOUT["get-stdout"])
    for number in range(guest.number(0, 3)):
        await guest.call(MESSAGE["send"], f"{number} ".ljust(40, "."))
    await guest.call(STREAMS["[method]output-stream.write"], stdout, b"printed by a child")
    receipt = await guest.call(MESSAGE["receive"])
    with closing(receipt), guest.host.client_wait(), trio.move_on_after(1):
        await receipt.ticket.wait()
    await guest.free(pages)
    return "talked"


async def stay(guest: ScriptHost) -> str:
    """A child that holds a page until it is ended, or for a long time."""
    await guest.queue.allocate(KV, 1)
    await trio.sleep(60)
    return "nobody ended it"


async def nest(guest: ScriptHost) -> str:
    """A child of a child of a child, and what becomes of the last."""
    depth = guest.number(0, 2)
    return await _outcome_of(guest, *(("sim-nest", str(depth - 1)) if depth else ("sim-stay",)))


async def fetches(guest: ScriptHost) -> str:
    """Asks allowed hosts and others, and lets go of a request on its way."""
    dropped = await guest.call(FETCH["send"], "GET", URLS[0], [], b"", None)
    await trio.sleep(guest.number(0, 3) / 1000)
    if not isinstance(dropped, Err):
        dropped.close()
    return json.dumps([await _fetch(guest, url) for url in URLS])


async def _fetch(guest: ScriptHost, url: str) -> str:
    pending = await guest.call(FETCH["send"], "GET", url, [("x-from", "sim")], b"", 20_000)
    if isinstance(pending, Err):
        return str(pending.payload.tag)
    with closing(pending):
        pollable = await guest.call(FETCH["[method]pending.pollable"], pending)
        late = Deadline(trio.current_time() + 30)
        await guest.call(POLL["poll"], [pollable, late])
        found = await guest.call(FETCH["[method]pending.get"], pending)
        assert found is not None, "a request takes longer than its time"
        return found.payload.tag if isinstance(found, Err) else f"{len(found['body'])} bytes"


RELATIVES: Mapping[str, Script] = MappingProxyType(
    {
        "parent": parent,
        "talker": talker,
        "stay": stay,
        "nest": nest,
        "fetches": fetches,
    }
)
