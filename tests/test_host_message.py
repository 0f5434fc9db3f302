"""`inferlet:core/message`: what reaches the client, what comes from it, and what peers hear."""

from __future__ import annotations

from inspect import isawaitable
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pie_trio.config import Limits
from pie_trio.errors import GuestFault
from pie_trio.messages import OutputEvent
from pie_trio.outlet import OutputReader
from pie_trio.wasm.host.state import InstanceHost
from tests.support.handles import World, call, inbox_of, outlet_of

MESSAGE = "core/message#"
GET_RECEIVED = MESSAGE + "[method]receive-result.get"
GET_PUBLISHED = MESSAGE + "[method]subscription.get"
PATIENCE_SECONDS = 5
FULL = Limits(outbox_bytes=1, detached_output_bytes=1)


def _blob(host: InstanceHost, data: bytes) -> Any:
    return call(host, "core/common#[constructor]blob", data)


async def _events(reader: OutputReader) -> list[OutputEvent]:
    with trio.fail_after(PATIENCE_SECONDS):
        return await reader.next_events()


# To the client


async def test_a_sent_message_reaches_the_client() -> None:
    host = World().host()
    reader = outlet_of(host).attach()
    await call(host, MESSAGE + "send", "hello")
    assert await _events(reader) == [OutputEvent("message", "hello")]


async def test_a_sent_blob_reaches_the_client_as_a_file_and_is_gone_for_the_guest() -> None:
    host = World().host()
    reader = outlet_of(host).attach()
    await call(host, MESSAGE + "send-blob", _blob(host, b"data"))
    assert await _events(reader) == [OutputEvent("file", "", b"data")]
    assert host.held.bytes_held == 0


@pytest.mark.parametrize("function", ["send", "send-blob"])
async def test_a_sender_waits_while_its_client_does_not_read_and_is_known_to(
    function: str, nursery: trio.Nursery
) -> None:
    host = World(FULL).host()
    reader = outlet_of(host).attach()
    await call(host, MESSAGE + "send", "first")
    what = "second" if function == "send" else _blob(host, b"second")
    nursery.start_soon(call, host, MESSAGE + function, what)
    await wait_all_tasks_blocked()
    assert host.client_waiting
    assert [event.value for event in await _events(reader)] == ["first"]
    await wait_all_tasks_blocked()
    assert not host.client_waiting
    (event,) = await _events(reader)
    assert event in (OutputEvent("message", "second"), OutputEvent("file", "", b"second"))


async def test_a_message_that_is_too_long_is_a_fault_and_not_sent() -> None:
    host = World(Limits(message_bytes=4)).host()
    with pytest.raises(GuestFault, match=r"send: the size of message is 5; .*message_bytes"):
        await call(host, MESSAGE + "send", "x" * 5)
    assert outlet_of(host).waiting_bytes == 0


# From the client


async def test_received_messages_come_in_order_one_receiver_each() -> None:
    host = World().host()
    first, second = (call(host, MESSAGE + "receive") for _ in range(2))
    assert call(host, GET_RECEIVED, first) is None
    inbox_of(host).deliver("a")
    inbox_of(host).deliver("b")
    assert call(host, GET_RECEIVED, second) == "b"
    assert call(host, GET_RECEIVED, first) == "a"
    assert call(host, GET_RECEIVED, first) == "a", "an answer can be read again"


async def test_a_message_that_came_before_its_receiver_is_kept() -> None:
    host = World().host()
    inbox_of(host).deliver("a")
    assert call(host, GET_RECEIVED, call(host, MESSAGE + "receive")) == "a"


async def test_a_receiver_that_is_dropped_unread_leaves_its_message_to_the_next() -> None:
    host = World().host()
    dropped, waiting = (call(host, MESSAGE + "receive") for _ in range(2))
    inbox_of(host).deliver("a")
    dropped.close()
    dropped.close()
    assert call(host, GET_RECEIVED, waiting) == "a"


async def test_a_receiver_that_is_dropped_after_reading_takes_its_message_along() -> None:
    host = World().host()
    read, waiting = (call(host, MESSAGE + "receive") for _ in range(2))
    inbox_of(host).deliver("a")
    assert call(host, GET_RECEIVED, read) == "a"
    read.close()
    assert call(host, GET_RECEIVED, waiting) is None


async def test_blobs_and_messages_wait_in_lines_of_their_own() -> None:
    host = World().host()
    blob, text = call(host, MESSAGE + "receive-blob"), call(host, MESSAGE + "receive")
    inbox_of(host).deliver("a")
    assert call(host, "core/common#[method]blob-result.get", blob) is None
    assert call(host, GET_RECEIVED, text) == "a"


@pytest.mark.parametrize(
    "receive, pollable_of",
    [
        ("receive", MESSAGE + "[method]receive-result.pollable"),
        ("receive-blob", "core/common#[method]blob-result.pollable"),
    ],
)
async def test_who_waits_for_a_dropped_receiver_is_not_left_waiting(
    receive: str, pollable_of: str
) -> None:
    host = World().host()
    result = call(host, MESSAGE + receive)
    pollable = call(host, pollable_of, result)
    assert not pollable.ready()
    result.close()
    assert pollable.ready()
    await pollable.wait()


async def test_the_pollable_of_a_receiver_wakes_when_its_message_comes(
    nursery: trio.Nursery,
) -> None:
    host = World().host()
    pollable = call(
        host, MESSAGE + "[method]receive-result.pollable", call(host, MESSAGE + "receive")
    )
    woken = trio.Event()

    async def wait() -> None:
        await pollable.wait()
        woken.set()

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    assert not woken.is_set()
    inbox_of(host).deliver("a")
    await wait_all_tasks_blocked()
    assert woken.is_set()


# Between instances


async def test_a_broadcast_reaches_every_subscriber_of_the_tenant_in_order() -> None:
    world = World()
    listeners = [(host, call(host, MESSAGE + "subscribe", "t")) for host in _hosts(world, 3)]
    stranger = world.host("other")
    foreign = call(stranger, MESSAGE + "subscribe", "t")
    sender = world.host()
    for text in ("a", "b"):
        await call(sender, MESSAGE + "broadcast", "t", text)
    for host, listener in listeners:
        assert [call(host, GET_PUBLISHED, listener) for _ in range(3)] == ["a", "b", None]
    assert call(stranger, GET_PUBLISHED, foreign) is None


def _hosts(world: World, count: int) -> list[InstanceHost]:
    return [world.host() for _ in range(count)]


async def test_a_broadcast_waits_for_a_full_subscriber_and_is_known_to(
    nursery: trio.Nursery,
) -> None:
    world = World(Limits(topic_messages=1))
    reader, sender = _hosts(world, 2)
    listener = call(reader, MESSAGE + "subscribe", "t")
    await call(sender, MESSAGE + "broadcast", "t", "a")
    nursery.start_soon(call, sender, MESSAGE + "broadcast", "t", "b")
    await wait_all_tasks_blocked()
    assert sender.client_waiting
    assert call(reader, GET_PUBLISHED, listener) == "a"
    await wait_all_tasks_blocked()
    assert not sender.client_waiting
    assert call(reader, GET_PUBLISHED, listener) == "b"


async def test_a_broadcast_that_dies_waiting_is_heard_by_nobody_more() -> None:
    world = World(Limits(topic_messages=1))
    reader, sender = _hosts(world, 2)
    listener = call(reader, MESSAGE + "subscribe", "t")
    await call(sender, MESSAGE + "broadcast", "t", "a")
    with trio.move_on_after(0):
        await call(sender, MESSAGE + "broadcast", "t", "b")
    assert call(reader, GET_PUBLISHED, listener) == "a"
    assert call(reader, GET_PUBLISHED, listener) is None
    assert not sender.client_waiting


@pytest.mark.parametrize("how", ["unsubscribe", "drop"])
async def test_a_waiting_broadcast_goes_on_when_the_full_subscriber_leaves(
    how: str, nursery: trio.Nursery
) -> None:
    world = World(Limits(topic_messages=1))
    reader, sender = _hosts(world, 2)
    listener = call(reader, MESSAGE + "subscribe", "t")
    await call(sender, MESSAGE + "broadcast", "t", "a")
    nursery.start_soon(call, sender, MESSAGE + "broadcast", "t", "b")
    await wait_all_tasks_blocked()
    if how == "unsubscribe":
        call(reader, MESSAGE + "[method]subscription.unsubscribe", listener)
    else:
        listener.close()
    await wait_all_tasks_blocked()
    assert not sender.client_waiting
    assert world.topics.topic_count == 0


async def test_after_unsubscribing_nothing_comes_and_nobody_waits() -> None:
    world = World()
    reader, sender = _hosts(world, 2)
    listener = call(reader, MESSAGE + "subscribe", "t")
    pollable = call(reader, MESSAGE + "[method]subscription.pollable", listener)
    call(reader, MESSAGE + "[method]subscription.unsubscribe", listener)
    await call(sender, MESSAGE + "broadcast", "t", "a")
    assert call(reader, GET_PUBLISHED, listener) is None
    assert pollable.ready()
    listener.close()


async def test_the_pollable_of_a_subscription_is_ready_while_a_message_is_unread(
    nursery: trio.Nursery,
) -> None:
    world = World()
    reader, sender = _hosts(world, 2)
    listener = call(reader, MESSAGE + "subscribe", "t")
    pollable = call(reader, MESSAGE + "[method]subscription.pollable", listener)
    for text in ("a", "b"):  # more than once: a subscription is never done
        assert not pollable.ready()
        nursery.start_soon(call, sender, MESSAGE + "broadcast", "t", text)
        await pollable.wait()
        assert pollable.ready()
        assert call(reader, GET_PUBLISHED, listener) == text


async def _called(host: InstanceHost, function: str, *arguments: str) -> None:
    returned = call(host, MESSAGE + function, *arguments)
    if isawaitable(returned):
        await returned


@pytest.mark.parametrize(
    "function, arguments, name",
    [
        ("subscribe", ("x" * 1025,), "name_bytes"),
        ("broadcast", ("x" * 1025, "a"), "name_bytes"),
        ("broadcast", ("t", "x" * (512 * 1024 + 1)), "message_bytes"),
    ],
)
async def test_topics_and_their_messages_are_bounded_by_name(
    function: str, arguments: tuple[str, ...], name: str
) -> None:
    world = World()
    with pytest.raises(GuestFault, match=rf"{function}: .*\({name}\)"):
        await _called(world.host(), function, *arguments)
    assert world.topics.topic_count == 0
