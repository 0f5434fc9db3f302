"""Queue: commands to one model, executed in order; and the pages that it hands out.

A `KvPage` gives itself back when the last reference to it is dropped, in queue order, so a pass
that was submitted before still reads it. A page is never given back twice.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from wit_world.imports import constraints, generate, pages
from wit_world.imports import inferlet_core_common as common

from inferlet.errors import raised
from inferlet.forward import ForwardPass
from inferlet.host import settled

if TYPE_CHECKING:
    from inferlet.constraint import Matcher

KV_PAGE = 0


class Priority(enum.Enum):
    """How urgent the passes of a queue are beside those of others."""

    LOW = "LOW"
    NORMAL = "NORMAL"
    HIGH = "HIGH"


class KvPage:
    """One page of the KV cache; hold it as long as it is needed, drop it to give it back.

    `is_shared` says that somebody else may read it, so that it must not be written again.
    """

    __slots__ = ("_queue", "handle", "is_shared")
    # Of all pages there are: a collector of garbage, which knows no order, must not close a queue
    # before its pages have gone back.
    _queues: ClassVar[Counter[common.Queue]] = Counter()

    def __init__(self, queue: common.Queue, handle: int, is_shared: bool = False) -> None:
        self._queue = queue
        self._queues[queue] += 1
        self.handle = handle
        self.is_shared = is_shared

    def __del__(self) -> None:
        common.deallocate_resources(self._queue, KV_PAGE, [self.handle])
        self._queues[self._queue] -= 1
        if not self._queues[self._queue]:
            del self._queues[self._queue]


class Queue:
    """A command queue of one model. Cancelling a wait leaves the command in the queue."""

    def __init__(self, raw: common.Queue) -> None:
        self._raw = raw

    def set_priority(self, priority: Priority) -> None:
        """For the passes made from now on."""
        self._raw.set_priority(common.Priority[priority.value])

    async def synchronize(self) -> None:
        """Returns when every command given before has been completed."""
        done = self._raw.synchronize()
        await settled(done)
        if not done.get():
            raise RuntimeError("the queue could not be synchronized")

    async def query(self, question: str) -> str:
        """What the model's worker or host answers to a debug query."""
        answer = self._raw.debug_query(question)
        await settled(answer)
        return answer.get() or ""

    async def render_chat(self, request: str) -> str:
        """Messages, as JSON, in the form of the model's chat template."""
        rendered = await self.query(f"render-chat {request}")
        if rendered.startswith("error: "):
            raise ValueError(rendered.removeprefix("error: "))
        return rendered

    def forward_pass(self) -> ForwardPass:
        """An empty pass on this queue."""
        return ForwardPass(self._raw)

    def allocate_pages(self, count: int) -> list[KvPage]:
        """Fresh pages; waits inside the host while there are none. Raises `OutOfPages`."""
        with raised():
            handles = pages.allocate(self._raw, count)
        return [KvPage(self._raw, handle) for handle in handles]

    def copy_of(self, page: KvPage, tokens: int) -> KvPage:
        """A fresh page with the first slots of this one, copied on the device."""
        (target,) = self.allocate_pages(1)
        with raised():
            pages.copy(self._raw, page.handle, target.handle, tokens)
        return target

    def decode(
        self, request: generate.Request, under: Matcher | None = None
    ) -> generate.TokenStream:
        """Has the model decode a sequence by itself; what comes later waits until that ends."""
        with raised():
            if under is not None:
                return constraints.start(self._raw, request, under.raw)
            return generate.start(self._raw, request)

    def export_pages(self, exported: Sequence[KvPage], name: str) -> None:
        """Puts pages under a name for later programs; they are read-only from now on."""
        for page in exported:
            page.is_shared = True
        common.export_resources(self._raw, KV_PAGE, [page.handle for page in exported], name)

    def import_pages(self, name: str) -> list[KvPage] | None:
        """The pages under a name, shared and read-only; None if there are none."""
        with raised():
            handles = pages.import_pages(self._raw, name)
        if handles is None:
            return None
        return [KvPage(self._raw, handle, is_shared=True) for handle in handles]

    def exports(self) -> dict[str, int]:
        """The names that can be imported, and how many pages each holds."""
        return dict(common.get_all_exported_resources(self._raw, KV_PAGE))

    def release_export(self, name: str) -> None:
        """Forgets a name; those who imported it keep its pages."""
        common.release_exported_resources(self._raw, KV_PAGE, name)
