"""What a guest can ask of a queue that may have to wait, each deed by itself and by its name.

They call the host functions that components call, by the same tables, so that a cancellation meets
the same frames. A deed may be refused; it never needs another instance to live.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

from pie_trio.messages import ResourceKind
from pie_trio.testing.guests import ScriptHost
from pie_trio.wasm.host.common import COMMON
from pie_trio.wasm.host.forward import FORWARD
from pie_trio.wasm.host.generate import GENERATE
from pie_trio.wasm.host.pages import PAGES
from pie_trio.wasm.host.resources import Queue

PAGE, EMBEDDING = int(ResourceKind.KV_PAGE), int(ResourceKind.EMBEDDING)
PLAIN_SAMPLER: Mapping[str, Any] = MappingProxyType(
    {
        "temperature": 0.0,
        **dict.fromkeys(("top-k", "top-p", "min-p", "seed", "logprobs")),
        **dict.fromkeys(("repetition-penalty", "frequency-penalty", "presence-penalty")),
        "logit-bias": [],
    }
)
Deed = Callable[[ScriptHost, Queue, list[int]], Awaitable[Any]]


async def _ping(guest: ScriptHost, queue: Queue, _pages: list[int]) -> Any:
    return await guest.call(COMMON["[method]queue.debug-query"], queue, "ping")


async def _synchronize(guest: ScriptHost, queue: Queue, _pages: list[int]) -> Any:
    return await guest.call(COMMON["[method]queue.synchronize"], queue)


async def _allocate(guest: ScriptHost, queue: Queue, _pages: list[int]) -> Any:
    return await guest.call(COMMON["allocate-resources"], queue, PAGE, 1)


async def _deallocate(guest: ScriptHost, queue: Queue, pages: list[int]) -> Any:
    return await guest.call(COMMON["deallocate-resources"], queue, PAGE, pages)


async def _export(guest: ScriptHost, queue: Queue, pages: list[int]) -> Any:
    name = f"waits of {guest.host.owner.number}"
    return await guest.call(COMMON["export-resources"], queue, PAGE, pages, name)


async def _import(guest: ScriptHost, queue: Queue, _pages: list[int]) -> Any:
    return await guest.call(COMMON["import-resources"], queue, PAGE, "nobody's")


async def _release(guest: ScriptHost, queue: Queue, _pages: list[int]) -> Any:
    return await guest.call(COMMON["release-exported-resources"], queue, PAGE, "nobody's")


async def _all(guest: ScriptHost, queue: Queue, _pages: list[int]) -> Any:
    return await guest.call(COMMON["get-all-exported-resources"], queue, EMBEDDING)


async def _execute(guest: ScriptHost, queue: Queue, pages: list[int]) -> Any:
    return await execute(guest, queue, pages or [0], 1)


async def _take_pages(guest: ScriptHost, queue: Queue, _pages: list[int]) -> Any:
    return await guest.call(PAGES["allocate"], queue, 1)


async def _copy_page(guest: ScriptHost, queue: Queue, pages: list[int]) -> Any:
    source = pages[0] if pages else 0
    return await guest.call(PAGES["copy"], queue, source, source + 1, 1)


async def _import_pages(guest: ScriptHost, queue: Queue, _pages: list[int]) -> Any:
    return await guest.call(PAGES["import-pages"], queue, "nobody's")


async def _start_stream(guest: ScriptHost, queue: Queue, pages: list[int]) -> Any:
    return await guest.call(GENERATE["start"], queue, stream_request(pages or [0], [], 2))


def stream_request(pages: list[int], reserve: list[int], tokens_max: int) -> Mapping[str, Any]:
    """Three tokens on the first page, and greedily on from there."""
    return {
        "tokens": [50, 51, 52],
        "positions": [0, 1, 2],
        "pages": pages,
        "last-page-len": 3,
        "reserve": reserve,
        "mask": None,
        "sampler": PLAIN_SAMPLER,
        "stop-tokens": [],
        "stop-sequences": [],
        "max-tokens": tokens_max,
        "earlier": [],
        "generated": [],
    }


DEEDS: Mapping[str, Deed] = MappingProxyType(
    {
        "allocate": _allocate,
        "deallocate": _deallocate,
        "export": _export,
        "import": _import,
        "release": _release,
        "all": _all,
        "synchronize": _synchronize,
        "ping": _ping,
        "execute": _execute,
        "take-pages": _take_pages,
        "copy-page": _copy_page,
        "import-pages": _import_pages,
        "start-stream": _start_stream,
    }
)


async def execute(
    guest: ScriptHost, queue: Queue, pages: list[int], rows: int, *, masked: bool = False
) -> Any:
    """A pass of so many rows at the start of these pages."""
    builder = await guest.call(FORWARD["create-forward-pass"], queue)
    places = list(range(rows))
    last = (rows - 1) % guest.page_tokens + 1
    await guest.call(FORWARD["kv-cache"], builder, pages, last)
    await guest.call(FORWARD["input-tokens"], builder, [50 + place % 9 for place in places], places)
    if masked:
        await guest.call(FORWARD["attention-mask"], builder, [[place + 1] for place in places])
    await guest.call(FORWARD["output-tokens"], builder, [rows - 1], 0.0)
    return await guest.call(FORWARD["[method]forward-pass.execute"], builder)
