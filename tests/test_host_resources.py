"""`inferlet:core/common`: how pages and embeddings come, go and are shared."""

from __future__ import annotations

from typing import Any

import pytest

from pie_trio.errors import GuestFault
from pie_trio.messages import ResourceKind
from tests.support.handles import World, call, open_queue

COMMON = "core/common#"


@pytest.mark.parametrize("number, kind", [(0, ResourceKind.KV_PAGE), (1, ResourceKind.EMBEDDING)])
async def test_resources_are_allocated_by_kind(number: int, kind: ResourceKind) -> None:
    host = World().host()
    queue, handle = open_queue(host)
    handles = await call(host, COMMON + "allocate-resources", queue, number, 2)
    assert handle.owned == {(kind, each) for each in handles}


async def test_deallocated_resources_are_no_longer_owned() -> None:
    host = World().host()
    queue, handle = open_queue(host)
    first, second = await call(host, COMMON + "allocate-resources", queue, 0, 2)
    await call(host, COMMON + "deallocate-resources", queue, 0, [first])
    assert handle.owned == {(ResourceKind.KV_PAGE, second)}


async def test_exports_are_listed_by_name_and_number() -> None:
    host = World().host()
    queue, _ = open_queue(host)
    handles = await call(host, COMMON + "allocate-resources", queue, 0, 3)
    await call(host, COMMON + "export-resources", queue, 0, handles, "prefix")
    assert await call(host, COMMON + "get-all-exported-resources", queue, 0) == [("prefix", 3)]
    assert await call(host, COMMON + "get-all-exported-resources", queue, 1) == []


async def test_an_export_gives_the_pages_away() -> None:
    host = World().host()
    queue, handle = open_queue(host)
    handles = await call(host, COMMON + "allocate-resources", queue, 0, 2)
    await call(host, COMMON + "export-resources", queue, 0, handles, "prefix")
    assert handle.owned == set()


async def test_an_import_gives_handles_of_the_exported_pages() -> None:
    host = World().host()
    queue, handle = open_queue(host)
    handles = await call(host, COMMON + "allocate-resources", queue, 0, 2)
    await call(host, COMMON + "export-resources", queue, 0, handles, "prefix")
    imported = await call(host, COMMON + "import-resources", queue, 0, "prefix")
    assert handle.owned == {(ResourceKind.KV_PAGE, each) for each in imported}
    assert len(imported) == 2


async def test_a_released_export_is_no_longer_listed() -> None:
    host = World().host()
    queue, _ = open_queue(host)
    handles = await call(host, COMMON + "allocate-resources", queue, 0, 2)
    await call(host, COMMON + "export-resources", queue, 0, handles, "prefix")
    await call(host, COMMON + "release-exported-resources", queue, 0, "prefix")
    assert await call(host, COMMON + "get-all-exported-resources", queue, 0) == []


async def test_the_name_of_an_export_is_bounded() -> None:
    host = World().host()
    queue, _ = open_queue(host)
    with pytest.raises(GuestFault, match="name_bytes"):
        await call(host, COMMON + "export-resources", queue, 0, [], "x" * 1025)


RESOURCE_CALLS = [
    ("allocate-resources", (1,)),
    ("deallocate-resources", ([],)),
    ("get-all-exported-resources", ()),
    ("release-exported-resources", ("name",)),
    ("export-resources", ([], "name")),
    ("import-resources", ("name",)),
]


@pytest.mark.parametrize("function, rest", RESOURCE_CALLS)
@pytest.mark.parametrize("kind, reason", [(2, "not served yet: adapters"), (3, "resource-type")])
async def test_a_kind_that_is_not_served_is_refused_by_name(
    function: str, rest: tuple[Any, ...], kind: int, reason: str
) -> None:
    host = World().host()
    queue, handle = open_queue(host)
    with pytest.raises(GuestFault, match=f"{function}: .*{reason}"):
        await call(host, COMMON + function, queue, kind, *rest)
    assert handle.granted == 0


@pytest.mark.parametrize(
    "function, rest", [("deallocate-resources", ()), ("export-resources", ("name",))]
)
async def test_a_handle_that_is_given_twice_is_a_fault_and_nothing_is_given_away(
    function: str, rest: tuple[Any, ...]
) -> None:
    host = World().host()
    queue, handle = open_queue(host)
    (page,) = await call(host, COMMON + "allocate-resources", queue, 0, 1)
    with pytest.raises(GuestFault, match="repeated entry of ptrs is 0"):
        await call(host, COMMON + function, queue, 0, [page, page], *rest)
    assert handle.owned == {(ResourceKind.KV_PAGE, page)}
