"""Output buffers and inboxes: order, bounds, and what a dead reader leaves behind."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pie_trio.config import Limits
from pie_trio.errors import BadRequest, GuestFault
from pie_trio.inbox import InstanceInbox
from pie_trio.messages import OutputEvent
from pie_trio.outlet import OutputBuffer, event_bytes

RETURN = OutputEvent("return", "done")


def text(value: str) -> OutputEvent:
    return OutputEvent("stdout", value)


def small(**bounds: int) -> Limits:
    sizes = {
        "outbox_bytes": 2 * event_bytes(text("a")),
        "detached_output_bytes": event_bytes(text("a")),
    }
    return Limits(**{**sizes, **bounds})


async def test_events_come_in_order_and_the_terminal_comes_last() -> None:
    buffer = OutputBuffer(Limits())
    await buffer.put(text("a"))
    await buffer.put(text("b"))
    buffer.close(RETURN)
    reader = buffer.attach()
    assert await reader.next_events() == [text("a"), text("b"), RETURN]
    assert await reader.next_events() == []
    assert buffer.waiting_bytes == 0


async def test_only_one_reader_is_attached_at_a_time() -> None:
    buffer = OutputBuffer(Limits())
    reader = buffer.attach()
    with pytest.raises(BadRequest):
        buffer.attach()
    reader.detach()
    reader.detach()
    assert not buffer.is_attached
    buffer.attach()


async def test_what_was_not_acknowledged_is_read_again_by_the_next_reader() -> None:
    buffer = OutputBuffer(Limits())
    for value in "abc":
        await buffer.put(text(value))
    first = buffer.attach()
    assert len(await first.unacknowledged_events()) == 3
    first.acknowledge()
    first.detach()
    assert await buffer.attach().next_events() == [text("b"), text("c")]


async def test_a_reader_that_left_acknowledges_nothing_any_more() -> None:
    buffer = OutputBuffer(Limits())
    await buffer.put(text("a"))
    first = buffer.attach()
    await first.unacknowledged_events()
    first.detach()
    first.acknowledge()
    assert await buffer.attach().next_events() == [text("a")]


async def test_the_terminal_is_read_again_by_the_next_reader() -> None:
    buffer = OutputBuffer(Limits())
    buffer.close(RETURN)
    first = buffer.attach()
    assert await first.next_events() == [RETURN]
    first.detach()
    assert await buffer.attach().next_events() == [RETURN]


async def test_events_put_while_others_are_shown_come_next(nursery: trio.Nursery) -> None:
    buffer = OutputBuffer(Limits())
    reader = buffer.attach()
    await buffer.put(text("a"))
    assert await reader.unacknowledged_events() == [text("a")]
    await buffer.put(text("b"))
    assert await reader.unacknowledged_events() == [text("b")]
    reader.acknowledge(2)
    assert buffer.waiting_bytes == 0


async def test_a_full_buffer_makes_its_writers_wait_in_order(nursery: trio.Nursery) -> None:
    buffer = OutputBuffer(small())
    reader = buffer.attach()
    letters = "abcdefghijklmnop"
    for value in letters:
        nursery.start_soon(buffer.put, text(value))
        await wait_all_tasks_blocked()
    assert buffer.waiting_bytes == 2 * event_bytes(text("a"))
    seen = ""
    while len(seen) < len(letters):
        seen += "".join(event.value for event in await reader.next_events())
    assert seen == letters


async def test_an_event_larger_than_the_bound_passes_alone() -> None:
    buffer = OutputBuffer(small())
    await buffer.put(text("x" * 10_000))
    assert buffer.waiting_bytes > 10_000


async def test_a_detached_writer_waits_only_for_a_time(autojump_clock: MockClock) -> None:
    buffer = OutputBuffer(small())
    await buffer.put(text("a"))
    before = trio.current_time()
    with pytest.raises(GuestFault, match="nobody attached"):
        await buffer.put(text("b"))
    assert trio.current_time() - before == pytest.approx(Limits().detached_write_seconds)


async def test_an_attached_writer_waits_as_long_as_its_reader(autojump_clock: MockClock) -> None:
    buffer = OutputBuffer(small())
    reader = buffer.attach()
    await buffer.put(text("a"))
    await buffer.put(text("b"))
    with trio.move_on_after(10 * Limits().detached_write_seconds) as scope:
        await buffer.put(text("c"))
    assert scope.cancelled_caught
    assert [event.value for event in await reader.next_events()] == ["a", "b"]


async def test_a_cancelled_writer_leaves_its_event_unwritten(nursery: trio.Nursery) -> None:
    buffer = OutputBuffer(small())
    await buffer.put(text("a"))
    with trio.CancelScope() as scope:
        scope.cancel()
        await buffer.put(text("b"))
    buffer.close(RETURN)
    assert await buffer.attach().next_events() == [text("a"), RETURN]


async def test_output_that_nobody_wants_is_dropped_but_not_its_end() -> None:
    buffer = OutputBuffer(Limits(), capture=False)
    await buffer.put(text("a"))
    reader = buffer.attach()
    await buffer.put(text("b"))
    buffer.close(RETURN)
    assert await reader.next_events() == [text("b"), RETURN]


def test_messages_go_to_tickets_in_the_order_of_both() -> None:
    inbox = InstanceInbox(Limits())
    inbox.deliver("a")
    first, second, third = inbox.ticket(), inbox.ticket(), inbox.ticket()
    inbox.deliver("b")
    assert (first.take(), second.take(), third.is_filled) == ("a", "b", False)
    inbox.withdraw(third)
    inbox.deliver("c")
    assert inbox.ticket().take() == "c"


def test_an_unread_message_goes_back_to_the_head_of_the_line() -> None:
    inbox = InstanceInbox(Limits())
    dropped = inbox.ticket()
    inbox.deliver("a")
    inbox.deliver("b")
    inbox.withdraw(dropped)
    assert [inbox.ticket().take(), inbox.ticket().take()] == ["a", "b"]


def test_an_unread_message_goes_to_whoever_already_waits() -> None:
    inbox = InstanceInbox(Limits())
    dropped, waiting = inbox.ticket(), inbox.ticket()
    inbox.deliver("a")
    inbox.withdraw(dropped)
    assert waiting.take() == "a"


def test_a_full_inbox_refuses_by_count_and_by_size() -> None:
    inbox = InstanceInbox(Limits(signals_waiting=2, blobs_bytes=10))
    inbox.deliver("a")
    inbox.deliver("b")
    with pytest.raises(BadRequest, match="2 unread messages"):
        inbox.deliver("c")
    inbox.deliver_blob(bytes(8))
    with pytest.raises(BadRequest, match="10 B"):
        inbox.deliver_blob(bytes(3))
    assert len(inbox.blob_ticket().take()) == 8
    inbox.deliver_blob(bytes(3))
    assert inbox.blob_ticket().take() == bytes(3)
