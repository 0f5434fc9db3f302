"""An instance whose guest is the test itself: the engine's real leases and queues, no wasm."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import trio

from gpu_worker.wire import OutputRow, SamplerKind
from pie_trio.errors import PieError
from pie_trio.instance_scope import InstanceScope
from pie_trio.mailbox import Reply
from pie_trio.messages import (
    InstanceId,
    Owner,
    PageHandle,
    PassDraft,
    PassResult,
    ResourceKind,
)
from pie_trio.model_access import InstanceModel
from pie_trio.queue_access import InstanceQueue
from pie_trio.served_model import Resident
from tests.world import World

KV = ResourceKind.KV_PAGE
PAGE_SIZE = 16


@attrs.define(eq=False)
class Scripted:
    """What a guest can do, without its ABI."""

    model: InstanceModel
    queue: InstanceQueue
    faults: list[PieError]

    def new_queue(self) -> InstanceQueue:
        queue = self.model.create_queue()
        assert isinstance(queue, InstanceQueue)
        return queue

    async def submit(
        self,
        pages: Sequence[int],
        tokens: Sequence[int],
        total: int,
        *,
        queue: InstanceQueue | None = None,
        temperature: float = 0.0,
        wants_token: bool = True,
        mask: tuple[tuple[int, ...], ...] | None = None,
    ) -> Reply[PassResult]:
        """A pass whose last row ends the context of `total` slots; samples at its last row."""
        output = OutputRow(len(tokens) - 1, SamplerKind.MULTINOMIAL, temperature)
        draft = PassDraft(
            tokens=tuple(tokens),
            positions=tuple(range(total - len(tokens), total)),
            pages=tuple(PageHandle(page) for page in pages[: -(-total // PAGE_SIZE)]),
            last_page_length=(total - 1) % PAGE_SIZE + 1,
            mask=mask,
            outputs=(output,) if wants_token else (),
            embed_outputs=(),
        )
        return await (queue or self.queue).submit(draft)

    async def next_token(self, pages: Sequence[int], tokens: Sequence[int], total: int) -> int:
        reply = await self.submit(pages, tokens, total)
        (token,) = (await reply.answer()).tokens
        return token

    async def next_of(self, text: Sequence[int]) -> int:
        """What follows a text, computed on fresh pages: the reference."""
        pages = await self.queue.allocate(KV, -(-len(text) // PAGE_SIZE))
        token = await self.next_token(pages, text, len(text))
        await self.queue.deallocate(KV, pages)
        return token


@asynccontextmanager
async def open_scripted(
    world: World, number: int, tenant: str = "local"
) -> AsyncIterator[Scripted]:
    """Leaving the block is the instance's death."""
    faults: list[PieError] = []
    owner = Owner(number, InstanceId(f"scripted-{number}"), tenant, "scripted@1.0.0")
    async with AsyncExitStack() as leases, trio.open_nursery() as queues:
        engine = world.engine
        resident = Resident(owner, faults.append, lambda: False)
        scope = InstanceScope(resident, leases, queues, engine.settings.limits, engine.ports)
        model = InstanceModel(world.model, scope)
        queue = model.create_queue()
        assert isinstance(queue, InstanceQueue)
        yield Scripted(model, queue, faults)
        queues.cancel_scope.cancel()
