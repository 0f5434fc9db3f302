"""`inferlet:core/common`: blobs, models, queues and resources, function by function."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from pie_trio.config import Limits
from pie_trio.errors import GuestFault, PassFailed, TooMany
from pie_trio.messages import Priority, ResourceKind
from tests.support.handles import FACTS, World, call, open_queue

COMMON = "core/common#"


def _blob(host: Any, data: bytes) -> Any:
    return call(host, COMMON + "[constructor]blob", data)


def _model(host: Any) -> Any:
    return call(host, "core/runtime#get-model", "small")


# Blobs


async def test_a_blob_copies_the_bytes_it_is_made_of() -> None:
    host = World().host()
    source = bytearray(b"abc")
    blob = _blob(host, source)
    source[:] = b"xyz"
    assert call(host, COMMON + "[method]blob.read", blob, 0, 3) == b"abc"


@pytest.mark.parametrize(
    "offset, n, expected", [(1, 2, b"bc"), (2, 99, b"cd"), (4, 1, b""), (0, 2**64 - 1, b"abcd")]
)
async def test_a_read_of_a_blob_ends_at_its_end(offset: int, n: int, expected: bytes) -> None:
    host = World().host()
    blob = _blob(host, b"abcd")
    assert call(host, COMMON + "[method]blob.read", blob, offset, n) == expected


async def test_a_read_beyond_the_end_of_a_blob_is_a_fault() -> None:
    host = World().host()
    blob = _blob(host, b"abcd")
    with pytest.raises(GuestFault, match=r"blob.read: offset is 5; allowed: 0 to 4"):
        call(host, COMMON + "[method]blob.read", blob, 5, 0)


async def test_the_size_of_a_blob_is_its_bytes() -> None:
    host = World().host()
    assert call(host, COMMON + "[method]blob.size", _blob(host, b"abcd")) == 4


async def test_what_a_guest_has_the_host_hold_is_bounded_and_given_back_when_dropped() -> None:
    host = World(Limits(guest_held_bytes=8)).host()
    blob = _blob(host, b"12345")
    with pytest.raises(TooMany, match="guest_held_bytes"):
        _blob(host, b"1234")
    blob.close()
    blob.close()
    _blob(host, b"12345678")
    assert host.held.bytes_held == 8


async def test_a_blob_result_is_none_until_ready_and_gives_the_same_bytes_each_time() -> None:
    host = World().host()
    result = call(host, "core/message#receive-blob")
    get = COMMON + "[method]blob-result.get"
    assert call(host, get, result) is None
    host.inbox.deliver_blob(b"data")
    first, second = call(host, get, result), call(host, get, result)
    assert (first.data, second.data) == (b"data", b"data")
    assert first is not second, "each is a resource of its own, dropped by itself"


async def test_the_pollable_of_a_blob_result_is_ready_when_the_blob_came() -> None:
    host = World().host()
    result = call(host, "core/message#receive-blob")
    pollable = call(host, COMMON + "[method]blob-result.pollable", result)
    assert not pollable.ready()
    host.inbox.deliver_blob(b"data")
    await pollable.wait()
    assert pollable.ready()


# Models


@pytest.mark.parametrize(
    "method, expected",
    [
        ("get-name", FACTS.name),
        ("get-traits", FACTS.traits),
        ("get-description", FACTS.description),
        ("get-prompt-template", FACTS.prompt_template),
        ("get-stop-tokens", FACTS.stop_tokens),
        ("get-service-id", FACTS.service_id),
        ("get-kv-page-size", FACTS.page_size),
    ],
)
async def test_a_model_tells_its_facts(method: str, expected: object) -> None:
    host = World().host()
    assert call(host, f"{COMMON}[method]model.{method}", _model(host)) == expected


async def test_each_queue_of_a_model_is_another() -> None:
    host = World().host()
    assert open_queue(host)[1] is not open_queue(host)[1]


async def test_open_queues_are_bounded_and_a_dropped_one_makes_room() -> None:
    host = World(Limits(queues_per_instance=1)).host()
    queue, _ = open_queue(host)
    with pytest.raises(TooMany, match="queues_per_instance"):
        open_queue(host)
    queue.close()
    open_queue(host)


# Queues


async def test_a_queue_tells_the_service_of_its_model() -> None:
    host = World().host()
    queue, _ = open_queue(host)
    assert call(host, COMMON + "[method]queue.get-service-id", queue) == FACTS.service_id


@pytest.mark.parametrize("priority", ["low", "normal", "high"])
async def test_a_priority_reaches_the_queue(priority: str) -> None:
    host = World().host()
    queue, handle = open_queue(host)
    call(host, COMMON + "[method]queue.set-priority", queue, priority)
    assert handle.priority is Priority[priority.upper()]


async def test_synchronize_puts_a_barrier_into_the_queue() -> None:
    host = World().host()
    queue, handle = open_queue(host)
    await call(host, COMMON + "[method]queue.synchronize", queue)
    assert len(handle.barriers) == 1


@pytest.mark.parametrize("succeeded", [True, False])
async def test_a_synchronization_is_none_until_passed_and_then_tells_how_it_went(
    succeeded: bool,
) -> None:
    host = World().host()
    queue, handle = open_queue(host)
    result = await call(host, COMMON + "[method]queue.synchronize", queue)
    get = COMMON + "[method]synchronization-result.get"
    assert call(host, get, result) is None
    handle.barriers[0].fill(succeeded)
    assert call(host, get, result) is succeeded
    assert call(host, get, result) is succeeded


async def test_the_pollable_of_a_synchronization_is_ready_when_the_barrier_is_passed() -> None:
    host = World().host()
    queue, handle = open_queue(host)
    result = await call(host, COMMON + "[method]queue.synchronize", queue)
    pollable = call(host, COMMON + "[method]synchronization-result.pollable", result)
    assert not pollable.ready()
    handle.barriers[0].fill(True)
    await pollable.wait()
    assert pollable.ready()


async def test_a_refused_barrier_is_raised_when_its_answer_is_read() -> None:
    host = World().host()
    queue, handle = open_queue(host)
    result = await call(host, COMMON + "[method]queue.synchronize", queue)
    handle.barriers[0].refuse(PassFailed("broken"))
    with pytest.raises(PassFailed, match="broken"):
        call(host, COMMON + "[method]synchronization-result.get", result)


async def test_a_debug_query_is_handed_to_the_queue() -> None:
    host = World().host()
    queue, handle = open_queue(host)
    await call(host, COMMON + "[method]queue.debug-query", queue, "ping")
    assert handle.queries[0][0] == "ping"


async def test_a_debug_query_that_is_too_long_is_a_fault() -> None:
    host = World(Limits(message_bytes=16)).host()
    queue, _ = open_queue(host)
    with pytest.raises(GuestFault, match="message_bytes"):
        await call(host, COMMON + "[method]queue.debug-query", queue, "ü" * 9)


async def test_a_debug_query_result_is_none_until_answered_and_keeps_its_answer() -> None:
    host = World().host()
    queue, handle = open_queue(host)
    result = await call(host, COMMON + "[method]queue.debug-query", queue, "ping")
    get = COMMON + "[method]debug-query-result.get"
    assert call(host, get, result) is None
    handle.queries[0][1].fill("pong")
    assert [call(host, get, result) for _ in range(2)] == ["pong", "pong"]


async def test_the_pollable_of_a_debug_query_wakes_its_waiter(nursery: trio.Nursery) -> None:
    host = World().host()
    queue, handle = open_queue(host)
    result = await call(host, COMMON + "[method]queue.debug-query", queue, "ping")
    pollable = call(host, COMMON + "[method]debug-query-result.pollable", result)
    assert not pollable.ready()
    nursery.start_soon(pollable.wait)
    await trio.testing.wait_all_tasks_blocked()
    handle.queries[0][1].fill("pong")
    assert pollable.ready()


# Resources


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
