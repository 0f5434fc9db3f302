"""A guest in memory that describes forward passes by calling the host functions.

It holds what a real one would: a queue, three pages of four tokens, and one pass.
"""

from __future__ import annotations

from typing import Any

import attrs

from pie_trio.config import Limits
from pie_trio.messages import PassDraft
from pie_trio.wasm.host.resources import Queue
from pie_trio.wasm.host.state import InstanceHost
from tests.support.handles import MemoryQueue, World, call, open_queue

FORWARD = "core/forward#"
EXECUTE = FORWARD + "[method]forward-pass.execute"


@attrs.frozen
class Guest:
    """A guest with three pages of four tokens and one pass that it describes."""

    host: InstanceHost
    queue: Queue
    handle: MemoryQueue
    pages: list[int]
    builder: Any

    def set(self, function: str, *arguments: Any) -> None:
        call(self.host, FORWARD + function, self.builder, *arguments)

    async def execute(self) -> Any:
        return await call(self.host, EXECUTE, self.builder)

    async def draft(self) -> PassDraft:
        await self.execute()
        return self.handle.drafts[-1]


async def new_guest(limits: Limits | None = None) -> Guest:
    """Three pages of four tokens, and a pass with nothing in it."""
    host = World(limits or Limits()).host()
    queue, handle = open_queue(host)
    pages = await call(host, "core/common#allocate-resources", queue, 0, 3)
    builder = call(host, FORWARD + "create-forward-pass", queue)
    return Guest(host, queue, handle, pages, builder)


async def describing_guest(rows: int = 2, limits: Limits | None = None) -> Guest:
    """A guest whose pass has `rows` tokens behind a context that fills three pages with them."""
    guest = await new_guest(limits)
    guest.set("kv-cache", guest.pages, 4)
    guest.set("input-tokens", list(range(rows)), list(range(rows)))
    return guest
