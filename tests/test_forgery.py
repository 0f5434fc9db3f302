"""No number that a guest makes up reaches a page that is not its own.

Host functions are driven as a guest would, over the engine's real leases and queues and the inline
pretend worker; leaving the world checks that the books balance after every attempt.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from pie_trio.errors import GuestFault, PieError
from pie_trio.instance_scope import InstanceScope
from pie_trio.messages import InstanceId, Owner
from pie_trio.model_access import InstanceModel
from pie_trio.ports import Ports, RandomStreams
from pie_trio.served_model import Resident
from pie_trio.wasm.host.resources import Queue
from pie_trio.wasm.host.state import InstanceHost
from tests import world as engine_world
from tests.support.handles import World, call

COMMON, FORWARD = "core/common#", "core/forward#"
PAGE, EMBEDDING = 0, 1
LARGEST = 2**32 - 1


@attrs.frozen
class Forger:
    """An instance without wasm: its host, one queue, and some pages of its own."""

    host: InstanceHost
    queue: Queue
    pages: list[int]
    embeddings: list[int]

    async def resources(self, verb: str, *arguments: Any) -> Any:
        return await call(self.host, f"{COMMON}{verb}-resources", self.queue, *arguments)

    async def execute(self, pages: list[int], embedding: int | None = None) -> list[int]:
        """One pass of one token, or of one embedding, over these pages; what it samples."""
        builder = call(self.host, FORWARD + "create-forward-pass", self.queue)
        call(self.host, FORWARD + "kv-cache", builder, pages, 1)
        if embedding is None:
            call(self.host, FORWARD + "input-tokens", builder, [65], [0])
        else:
            call(self.host, FORWARD + "input-embeddings", builder, [embedding], [0])
        call(self.host, FORWARD + "output-tokens", builder, [0], 0.0)
        answer = await call(self.host, FORWARD + "[method]forward-pass.execute", builder)
        await call(self.host, FORWARD + "[method]forward-pass-result.pollable", answer).wait()
        tokens: list[int] = list(
            call(self.host, FORWARD + "[method]forward-pass-result.get-tokens", answer)
        )
        return tokens

    async def use(self, verb: str, page: int) -> None:
        """Whatever can be done with a page."""
        if verb == "execute":
            await self.execute([page])
        else:
            await self.resources(verb, PAGE, [page], *(["forged"] if verb == "export" else []))

    async def write_embedding(self, handle: int) -> None:
        builder = call(self.host, FORWARD + "create-forward-pass", self.queue)
        call(self.host, FORWARD + "kv-cache", builder, self.pages[:1], 1)
        call(self.host, FORWARD + "input-tokens", builder, [65], [0])
        call(self.host, FORWARD + "output-embeddings", builder, [handle], [0])
        await call(self.host, FORWARD + "[method]forward-pass.execute", builder)


@asynccontextmanager
async def _open_forger(world: engine_world.World, number: int) -> AsyncIterator[Forger]:
    def end_with(error: PieError) -> None:
        raise error

    owner = Owner(number, InstanceId(f"forger-{number}"), "local", "forger@1.0.0")
    ports = Ports(RandomStreams(number))
    async with AsyncExitStack() as leases, trio.open_nursery() as queues:
        limits = world.engine.settings.limits
        resident = Resident(owner, end_with, lambda: False)
        scope = InstanceScope(resident, leases, queues, limits, ports)
        small = World(models={"small": InstanceModel(world.model, scope)})
        host = small.host()
        model = call(host, "core/runtime#get-model", "small")
        queue = call(host, COMMON + "[method]model.create-queue", model)
        pages = await call(host, COMMON + "allocate-resources", queue, PAGE, 2)
        embeddings = await call(host, COMMON + "allocate-resources", queue, EMBEDDING, 1)
        yield Forger(host, queue, pages, embeddings)
        queues.cancel_scope.cancel()


@asynccontextmanager
async def _world_with(count: int, root: Path) -> AsyncIterator[list[Forger]]:
    async with engine_world.open_world(root, pages=16) as world, AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(_open_forger(world, number)) for number in range(count)
        ]


async def _freed(forger: Forger) -> int:
    page = forger.pages.pop()
    await forger.resources("deallocate", PAGE, [page])
    return page


async def _largest(_forger: Forger) -> int:
    return LARGEST


async def _never_granted(forger: Forger) -> int:
    return max(forger.pages) + 1


async def _freed_after_a_pass(forger: Forger) -> int:
    for page in forger.pages:
        await forger.execute([page])
    return await _freed(forger)


FORGERIES = [_freed, _freed_after_a_pass, _largest, _never_granted]


@pytest.mark.parametrize("forge", FORGERIES)
@pytest.mark.parametrize("use", ["execute", "deallocate", "export"])
async def test_a_page_handle_that_is_not_the_guests_is_a_fault(
    tmp_path: Path, forge: Callable[[Forger], Any], use: str
) -> None:
    async with _world_with(1, tmp_path) as (forger,):
        handle = await forge(forger)
        with pytest.raises(GuestFault, match=str(handle)):
            await forger.use(use, handle)
        assert len(await forger.execute(forger.pages[:1])) == 1, "what is its own still works"


@pytest.mark.parametrize("use", ["deallocate", "export"])
async def test_a_list_with_one_bad_handle_gives_nothing_away(tmp_path: Path, use: str) -> None:
    async with _world_with(1, tmp_path) as (forger,):
        rest = ("mixed",) if use == "export" else ()
        with pytest.raises(GuestFault):
            await forger.resources(use, PAGE, [forger.pages[0], LARGEST], *rest)
        assert len(await forger.execute(forger.pages[:1])) == 1
        assert await forger.resources("get-all-exported", PAGE) == []


async def test_a_handle_that_is_given_twice_is_a_fault(tmp_path: Path) -> None:
    async with _world_with(1, tmp_path) as (forger,):
        page = forger.pages[0]
        with pytest.raises(GuestFault, match="repeated entry"):
            await forger.resources("deallocate", PAGE, [page, page])
        with pytest.raises(GuestFault, match="repeated entry"):
            await forger.execute([page, page])
        assert len(await forger.execute([page])) == 1


async def test_equal_numbers_of_two_instances_are_different_pages(tmp_path: Path) -> None:
    async with _world_with(2, tmp_path) as (first, second):
        assert first.pages == second.pages, "handles are numbered for each guest alone"
        await first.resources("deallocate", PAGE, first.pages)
        assert len(await second.execute(second.pages[:1])) == 1
        with pytest.raises(GuestFault):
            await first.execute(second.pages[:1])


@pytest.mark.parametrize("handle", [LARGEST, 77])
async def test_an_embedding_that_is_not_the_guests_is_a_fault(tmp_path: Path, handle: int) -> None:
    async with _world_with(1, tmp_path) as (forger,):
        with pytest.raises(GuestFault, match=str(handle)):
            await forger.execute(forger.pages[:1], embedding=handle)
        with pytest.raises(GuestFault, match=str(handle)):
            await forger.write_embedding(handle)
        with pytest.raises(GuestFault, match=str(handle)):
            await forger.resources("deallocate", EMBEDDING, [handle])


async def test_a_page_is_no_embedding_and_an_embedding_is_no_page(tmp_path: Path) -> None:
    async with _world_with(1, tmp_path) as (forger,):
        only_a_page = next(p for p in forger.pages if p not in forger.embeddings)
        with pytest.raises(GuestFault):
            await forger.execute(forger.pages[:1], embedding=only_a_page)
        with pytest.raises(GuestFault):
            await forger.resources("deallocate", EMBEDDING, [only_a_page])


async def test_an_export_that_does_not_exist_cannot_be_imported_or_released(
    tmp_path: Path,
) -> None:
    async with _world_with(1, tmp_path) as (forger,):
        for verb in ("import", "release-exported"):
            with pytest.raises(GuestFault, match="no export named 'ghost'"):
                await forger.resources(verb, PAGE, "ghost")
