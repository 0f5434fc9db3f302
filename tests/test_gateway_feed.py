"""A feed between an output buffer and an outbox, step by step."""

from __future__ import annotations

import msgpack
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pie_trio.config import Limits
from pie_trio.messages import OutputEvent
from pie_trio.outlet import OutputBuffer
from pie_trio.services.gateway.feed import Feed
from pie_trio.services.gateway.outbox import Outbox, Parcel


async def taken(outbox: Outbox) -> list[Parcel]:
    """All that is there, waiting for the first."""
    await outbox.wait_until_filled()
    return outbox.take()


def open_feed(buffer: OutputBuffer, outbox: Outbox, limits: Limits, finished: list[str]) -> Feed:
    return Feed(
        process_id="p",
        reader=buffer.attach(),
        outbox=outbox,
        file_turn=trio.Lock(),
        limits=limits,
        finished=lambda: finished.append("p"),
    )


def values(parcels: list[Parcel]) -> list[tuple[str, str]]:
    messages = [msgpack.unpackb(parcel.frame) for parcel in parcels]
    return [(message["event"], message["value"]) for message in messages]


async def test_an_instance_is_let_go_only_when_its_end_has_been_written(
    nursery: trio.Nursery,
) -> None:
    buffer, outbox, finished = OutputBuffer(Limits()), Outbox(1_000_000), list[str]()
    await buffer.put(OutputEvent("stdout", "a"))
    buffer.close(OutputEvent("return", "done"))
    nursery.start_soon(open_feed(buffer, outbox, Limits(), finished).run)
    await wait_all_tasks_blocked()
    parcels = await taken(outbox)
    await wait_all_tasks_blocked()
    assert (buffer.is_attached, finished, buffer.waiting_bytes > 0) == (True, [], True)
    outbox.written(parcels)
    await wait_all_tasks_blocked()
    assert (buffer.is_attached, finished, buffer.waiting_bytes) == (False, ["p"], 0)


async def test_fragments_are_joined_and_messages_are_not(nursery: trio.Nursery) -> None:
    buffer, outbox = OutputBuffer(Limits()), Outbox(1_000_000)
    for kind, text in [("stdout", "a"), ("stdout", "b"), ("stderr", "c"), ("message", "d")] * 2:
        await buffer.put(OutputEvent(kind, text))
    nursery.start_soon(open_feed(buffer, outbox, Limits(), []).run)
    await wait_all_tasks_blocked()
    once = [("stdout", "ab"), ("stderr", "c"), ("message", "d")]
    parcels = await taken(outbox)
    assert values(parcels) == once * 2
    outbox.written(parcels)
    assert buffer.waiting_bytes == 0
    nursery.cancel_scope.cancel()


async def test_a_feed_that_is_cancelled_leaves_what_was_not_written(
    nursery: trio.Nursery,
) -> None:
    buffer, outbox = OutputBuffer(Limits()), Outbox(1_000_000)
    for text in "abc":
        await buffer.put(OutputEvent("message", text))
    async with trio.open_nursery() as inner:
        inner.start_soon(open_feed(buffer, outbox, Limits(), []).run)
        await wait_all_tasks_blocked()
        parcels = await taken(outbox)
        outbox.written(parcels[:1])
        inner.cancel_scope.cancel()
    left = await buffer.attach().next_events()
    assert [event.value for event in left] == ["b", "c"]


async def test_a_full_outbox_makes_the_feed_wait(nursery: trio.Nursery) -> None:
    buffer, outbox = OutputBuffer(Limits()), Outbox(1000)
    for _ in range(20):
        await buffer.put(OutputEvent("message", "x" * 300))
    nursery.start_soon(open_feed(buffer, outbox, Limits(), []).run)
    await wait_all_tasks_blocked()
    seen = 0
    while seen < 20:
        parcels = await taken(outbox)
        assert sum(len(parcel.frame) for parcel in parcels) <= 1000
        seen += len(parcels)
        outbox.written(parcels)
        await wait_all_tasks_blocked()
    nursery.cancel_scope.cancel()


async def test_the_first_file_comes_after_the_answer_and_a_moment(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    limits = Limits()
    buffer, outbox = OutputBuffer(limits), Outbox(1_000_000)
    await buffer.put(OutputEvent("file", "name", b"data"))
    feed = open_feed(buffer, outbox, limits, [])
    nursery.start_soon(feed.run)
    with trio.move_on_after(60) as scope:
        await taken(outbox)
    assert scope.cancelled_caught, "nobody has answered yet"
    feed.answered()
    before = trio.current_time()
    await taken(outbox)
    assert trio.current_time() - before == pytest.approx(limits.file_hold_seconds)
    nursery.cancel_scope.cancel()


async def test_two_files_of_the_same_content_do_not_mix(nursery: trio.Nursery) -> None:
    limits = Limits(upload_chunk_bytes=10)
    outbox, turn, content = Outbox(1), trio.Lock(), bytes(50)
    for name in ("one", "two"):
        buffer = OutputBuffer(limits)
        await buffer.put(OutputEvent("file", name, content))
        feed = open_feed(buffer, outbox, Limits(upload_chunk_bytes=10, file_hold_seconds=0), [])
        feed.file_turn = turn
        feed.answered()
        nursery.start_soon(feed.run)
        await wait_all_tasks_blocked()
    names: list[str] = []
    while len(names) < 10:
        parcels = await taken(outbox)
        names += [msgpack.unpackb(parcel.frame)["name"] for parcel in parcels]
        outbox.written(parcels)
    assert names == ["one"] * 5 + ["two"] * 5
    nursery.cancel_scope.cancel()


async def test_a_message_that_finds_the_way_free_is_in_the_outbox_at_once(
    nursery: trio.Nursery,
) -> None:
    buffer, outbox = OutputBuffer(Limits()), Outbox(1_000_000)
    await buffer.put(OutputEvent("message", "a"))  # nobody listens yet
    nursery.start_soon(open_feed(buffer, outbox, Limits(), []).run)
    await wait_all_tasks_blocked()
    for kind, text in [("message", "b"), ("stdout", "c"), ("message", "d"), ("message", "e")]:
        await buffer.put(OutputEvent(kind, text))
    parcels = outbox.take()
    assert values(parcels) == [("message", "a"), ("message", "b")]  # c wakes the feed, d is behind
    await wait_all_tasks_blocked()
    parcels += outbox.take()
    assert "".join(text for _, text in values(parcels)) == "abcde"
    assert buffer.waiting_bytes > 0
    outbox.written(parcels)
    assert buffer.waiting_bytes == 0
    nursery.cancel_scope.cancel()


async def test_no_message_overtakes_a_file_that_waits_for_its_moment(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    buffer, outbox = OutputBuffer(Limits()), Outbox(1_000_000)
    feed = open_feed(buffer, outbox, Limits(), [])
    nursery.start_soon(feed.run)
    await wait_all_tasks_blocked()
    await buffer.put(OutputEvent("file", "name", b"data"))
    await wait_all_tasks_blocked()
    await buffer.put(OutputEvent("message", "a"))
    feed.answered()
    await trio.sleep(Limits().file_hold_seconds + 1)
    types = [msgpack.unpackb(parcel.frame)["type"] for parcel in outbox.take()]
    assert types == ["file", "process_event"]
    nursery.cancel_scope.cancel()


async def test_no_message_overtakes_those_that_wait_for_room(nursery: trio.Nursery) -> None:
    buffer, outbox = OutputBuffer(Limits()), Outbox(1000)
    nursery.start_soon(open_feed(buffer, outbox, Limits(), []).run)
    await wait_all_tasks_blocked()
    for number in range(8):
        await buffer.put(OutputEvent("message", f"{number}" * 200))
    heard = []
    while len(heard) < 9:
        parcels = await taken(outbox)
        if not heard:  # there is room from now on, and the feed has not woken
            await buffer.put(OutputEvent("message", "8"))
        heard += [text[0] for _, text in values(parcels)]
        outbox.written(parcels)
    assert heard == [*"012345678"]
    nursery.cancel_scope.cancel()


async def test_a_message_that_was_taken_at_once_and_not_written_stays_for_the_next_reader(
    nursery: trio.Nursery,
) -> None:
    buffer, outbox = OutputBuffer(Limits()), Outbox(1_000_000)
    async with trio.open_nursery() as inner:
        inner.start_soon(open_feed(buffer, outbox, Limits(), []).run)
        await wait_all_tasks_blocked()
        for text in "ab":
            await buffer.put(OutputEvent("message", text))
        outbox.written(outbox.take()[:1])
        inner.cancel_scope.cancel()
    await buffer.put(OutputEvent("message", "c"))
    left = await buffer.attach().next_events()
    assert [event.value for event in left] == ["b", "c"]
