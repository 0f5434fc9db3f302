"""`inferlet:core/common`: blobs, models and queues, function by function."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from pie_trio.config import Limits
from pie_trio.errors import GuestFault, PassFailed, TooMany
from pie_trio.messages import Priority
from tests.support.handles import FACTS, World, call, inbox_of, open_queue

COMMON = "core/common#"


def _blob(host: Any, data: bytes | bytearray) -> Any:
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
    inbox_of(host).deliver_blob(b"data")
    first, second = call(host, get, result), call(host, get, result)
    assert (first.data, second.data) == (b"data", b"data")
    assert first is not second, "each is a resource of its own, dropped by itself"


async def test_the_pollable_of_a_blob_result_is_ready_when_the_blob_came() -> None:
    host = World().host()
    result = call(host, "core/message#receive-blob")
    pollable = call(host, COMMON + "[method]blob-result.pollable", result)
    assert not pollable.ready()
    inbox_of(host).deliver_blob(b"data")
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
