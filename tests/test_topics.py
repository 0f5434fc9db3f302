"""Topics deliver every message to every subscriber, once, in order, and hold up only senders."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pie_trio.config import Limits
from pie_trio.errors import TooMany
from pie_trio.services.topics import Publication, Subscription, TopicBoard


class Bell:
    """Counts how often it was rung."""

    def __init__(self) -> None:
        self.rings = 0

    def __call__(self) -> None:
        self.rings += 1


def _read(subscription: Subscription) -> list[str]:
    texts = []
    while (text := subscription.take()) is not None:
        texts.append(text)
    return texts


def _publish(board: TopicBoard, *texts: str, topic: str = "t") -> list[Publication]:
    return [board.publish("local", topic, text, Bell()) for text in texts]


def test_every_subscriber_gets_every_message_in_order() -> None:
    board = TopicBoard(Limits())
    readers = [board.subscribe("local", "t", Bell()) for _ in range(3)]
    _publish(board, "a", "b", "c")
    assert [_read(reader) for reader in readers] == [["a", "b", "c"]] * 3


def test_messages_sent_before_the_first_subscriber_came_are_kept_for_it() -> None:
    board = TopicBoard(Limits())
    _publish(board, "a", "b")
    first = board.subscribe("local", "t", Bell())
    second = board.subscribe("local", "t", Bell())
    _publish(board, "c")
    assert _read(first) == ["a", "b", "c"]
    assert _read(second) == ["c"]


def test_a_full_subscriber_makes_the_publisher_wait_and_nobody_else() -> None:
    board = TopicBoard(Limits(topic_messages=1))
    slow = board.subscribe("local", "t", Bell())
    quick = board.subscribe("local", "t", Bell())
    _publish(board, "a")
    assert quick.take() == "a"
    bell = Bell()
    waiting = board.publish("local", "t", "b", bell)
    assert not waiting.is_delivered
    assert _read(quick) == ["b"], "who has room has the message at once"
    assert slow.take() == "a"
    assert waiting.is_delivered
    assert bell.rings == 1
    assert _read(slow) == ["b"]
    assert _read(quick) == [], "nothing is delivered twice"


def test_publishers_that_wait_are_served_in_their_order() -> None:
    board = TopicBoard(Limits(topic_messages=1))
    reader = board.subscribe("local", "t", Bell())
    first, *others = _publish(board, "a", "b", "c")
    assert first.is_delivered
    assert not any(publication.is_delivered for publication in others)
    assert _read(reader) == ["a", "b", "c"]


def test_a_publisher_waits_when_what_is_kept_is_full_and_goes_on_at_the_first_reader() -> None:
    board = TopicBoard(Limits(topic_messages=2))
    *_, waiting = _publish(board, "a", "b", "c")
    assert not waiting.is_delivered
    reader = board.subscribe("local", "t", Bell())
    assert _read(reader) == ["a", "b", "c"]
    assert waiting.is_delivered


def test_unread_bytes_are_bounded_too() -> None:
    board = TopicBoard(Limits(topic_bytes=4))
    reader = board.subscribe("local", "t", Bell())
    first, second = _publish(board, "xxxx", "ü")
    assert first.is_delivered
    assert not second.is_delivered
    assert _read(reader) == ["xxxx", "ü"]


def test_a_short_message_does_not_overtake_a_long_one_that_waits() -> None:
    board = TopicBoard(Limits(topic_bytes=4))
    reader = board.subscribe("local", "t", Bell())
    first, long, short = _publish(board, "xxx", "yyyy", "z")
    assert [each.is_delivered for each in (first, long, short)] == [True, False, False]
    assert _read(reader) == ["xxx", "yyyy", "z"]


def test_what_was_read_makes_room() -> None:
    board = TopicBoard(Limits(topic_bytes=4))
    reader = board.subscribe("local", "t", Bell())
    _publish(board, "ab", "cd")
    assert reader.take() == "ab"
    (third,) = _publish(board, "ef")
    assert third.is_delivered


def test_a_publisher_that_dies_waiting_leaves_nothing_behind() -> None:
    board = TopicBoard(Limits(topic_messages=1))
    reader = board.subscribe("local", "t", Bell())
    _, dying, third = _publish(board, "a", "b", "c")
    dying.withdraw()
    assert _read(reader) == ["a", "c"]
    assert third.is_delivered


def test_publishers_go_on_when_the_full_subscriber_leaves() -> None:
    board = TopicBoard(Limits(topic_messages=1))
    full = board.subscribe("local", "t", Bell())
    board.publish("local", "t", "a", Bell())
    bell = Bell()
    board.publish("local", "t", "b", bell)
    full.close()
    assert bell.rings == 1
    assert board.topic_count == 0


def test_a_closed_subscription_gets_nothing_more_and_closes_twice_without_harm() -> None:
    board = TopicBoard(Limits())
    reader = board.subscribe("local", "t", Bell())
    other = board.subscribe("local", "t", Bell())
    _publish(board, "a")
    reader.close()
    reader.close()
    _publish(board, "b")
    assert _read(reader) == []
    assert _read(other) == ["a", "b"]


def test_a_message_rings_at_its_subscriber() -> None:
    board = TopicBoard(Limits())
    bell = Bell()
    board.subscribe("local", "t", bell)
    _publish(board, "a")
    assert bell.rings == 1


def test_topics_of_nobody_do_not_exist() -> None:
    board = TopicBoard(Limits())
    for _ in range(3):
        board.subscribe("local", "t", Bell()).close()
    assert board.topic_count == 0


def test_topics_are_bounded_for_each_tenant_alone() -> None:
    board = TopicBoard(Limits(topics_max=1))
    board.subscribe("local", "t", Bell())
    with pytest.raises(TooMany, match="topics_max"):
        board.subscribe("local", "u", Bell())
    with pytest.raises(TooMany, match="topics_max"):
        board.publish("local", "u", "a", Bell())
    board.subscribe("other", "u", Bell())


def test_no_message_crosses_from_tenant_to_tenant() -> None:
    board = TopicBoard(Limits())
    foreign = board.subscribe("other", "t", Bell())
    _publish(board, "a")
    assert _read(foreign) == []


class TopicMachine(RuleBasedStateMachine):
    """Random publishers and readers: what each reader took is what was sent since it came."""

    def __init__(self) -> None:
        super().__init__()
        self.board = TopicBoard(Limits(topic_messages=2, topic_bytes=64))
        self.sent: list[str] = []
        self.reader_start = 0  # what the next first reader gets
        self.readers: list[tuple[Subscription, int, list[str]]] = []
        self.publications: list[Publication] = []

    @rule()
    def publish(self) -> None:
        text = f"message-{len(self.sent)}"
        self.publications.append(self.board.publish("local", "t", text, Bell()))
        self.sent.append(text)

    @rule()
    def subscribe(self) -> None:
        if len(self.readers) < 4:
            start = len(self.sent) if self.readers else self.reader_start
            subscription = self.board.subscribe("local", "t", Bell())
            self.readers.append((subscription, start, []))

    @rule(choice=st.integers(0, 3))
    def take(self, choice: int) -> None:
        if self.readers:
            subscription, _, texts = self.readers[choice % len(self.readers)]
            text = subscription.take()
            if text is not None:
                texts.append(text)

    @rule(choice=st.integers(0, 3))
    def close(self, choice: int) -> None:
        if self.readers:
            self.readers.pop(choice % len(self.readers))[0].close()
            if not self.readers:
                self.reader_start = len(self.sent)

    @invariant()
    def readers_took_a_prefix_of_what_was_sent_since_they_came(self) -> None:
        for _, start, texts in self.readers:
            assert texts == self.sent[start : start + len(texts)]

    def teardown(self) -> None:
        for subscription, start, texts in self.readers:
            texts += _read(subscription)
            assert texts == self.sent[start:]
        if self.readers:
            assert all(publication.is_delivered for publication in self.publications)


TestTopics = TopicMachine.TestCase
