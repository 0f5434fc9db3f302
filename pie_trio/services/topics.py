"""The topics of `inferlet:core/message`: every message of a topic reaches every subscriber.

Owns what was published and not yet read. Messages sent before the first subscriber came are kept
for it. A publisher whose message does not fit everywhere waits, and only it; a subscriber or a
waiting publisher that dies leaves by a synchronous call, and who waited for it goes on.
It must never drop a message, deliver one twice, or carry one from tenant to tenant.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import attrs

from pie_trio.config import Limits
from pie_trio.errors import TooMany


@attrs.define(eq=False)
class Publication:
    """One message on its way. Invariant: `lines` are those that still owe it a place."""

    text: str
    on_delivered: Callable[[], None]
    lines: set[_Line] = attrs.field(factory=set, init=False)

    @property
    def is_delivered(self) -> bool:
        return not self.lines

    def withdraw(self) -> None:
        """The publisher is gone: who has the message keeps it, nobody else gets it."""
        for line in self.lines:
            line.waiting.remove(self)
        self.lines.clear()

    def _leave(self, line: _Line) -> None:
        self.lines.discard(line)
        if not self.lines:
            self.on_delivered()


@attrs.define(eq=False)
class _Line:
    """The unread messages of one reader, in order, and the publications that wait for room."""

    limits: Limits
    messages: deque[str] = attrs.field(factory=deque, init=False)
    size: int = attrs.field(default=0, init=False)
    waiting: deque[Publication] = attrs.field(factory=deque, init=False)

    def has_room(self, text: str) -> bool:
        """A message larger than the bound fits alone: it is bounded by `message_bytes`."""
        if not self.messages:
            return True
        fits = self.size + len(text.encode()) <= self.limits.topic_bytes
        return fits and len(self.messages) < self.limits.topic_messages

    def offer(self, publication: Publication) -> None:
        """Takes the message now, or puts its publication behind those that wait already."""
        if not self.waiting and self.has_room(publication.text):
            self._append(publication.text)
        else:
            self.waiting.append(publication)
            publication.lines.add(self)

    def take(self) -> str | None:
        if not self.messages:
            return None
        text = self.messages.popleft()
        self.size -= len(text.encode())
        while self.waiting and self.has_room(self.waiting[0].text):
            publication = self.waiting.popleft()
            self._append(publication.text)
            publication._leave(self)
        return text

    def close(self) -> None:
        while self.waiting:
            self.waiting.popleft()._leave(self)
        self.messages.clear()

    def _append(self, text: str) -> None:
        self.messages.append(text)
        self.size += len(text.encode())


@attrs.define(eq=False)
class _Topic:
    """Either nobody has subscribed yet and `kept` collects, or each subscription has its line."""

    kept: _Line | None
    subscriptions: list[Subscription] = attrs.field(factory=list)


@attrs.define(eq=False)
class Subscription:
    """One reader of a topic, until it is closed."""

    _board: TopicBoard
    tenant: str
    topic: str
    _line: _Line
    _on_message: Callable[[], None]
    is_closed: bool = attrs.field(default=False, init=False)

    @property
    def has_message(self) -> bool:
        return bool(self._line.messages)

    def take(self) -> str | None:
        """The oldest unread message; none if there is none yet."""
        return self._line.take()

    def close(self) -> None:
        """Unread messages are gone, and publishers that waited for this reader go on."""
        if not self.is_closed:
            self.is_closed = True
            self._board._remove(self)
            self._line.close()

    def _offer(self, publication: Publication) -> None:
        self._line.offer(publication)
        self._on_message()


@attrs.define(eq=False)
class TopicBoard:
    """All topics, by tenant and name. A topic with no reader and nothing kept does not exist."""

    _limits: Limits
    _tenants: dict[str, dict[str, _Topic]] = attrs.field(factory=dict, init=False)

    @property
    def topic_count(self) -> int:
        return sum(len(topics) for topics in self._tenants.values())

    def publish(
        self, tenant: str, name: str, text: str, on_delivered: Callable[[], None]
    ) -> Publication:
        """Delivered at once where there is room; `on_delivered` is called only if that is later."""
        topic = self._open(tenant, name)
        publication = Publication(text, on_delivered)
        if topic.kept is not None:
            topic.kept.offer(publication)
        for subscription in tuple(topic.subscriptions):
            subscription._offer(publication)
        return publication

    def subscribe(self, tenant: str, name: str, on_message: Callable[[], None]) -> Subscription:
        """The first reader gets what was kept; `on_message` is called at each arrival."""
        topic = self._open(tenant, name)
        line = topic.kept or _Line(self._limits)
        topic.kept = None
        subscription = Subscription(self, tenant, name, line, on_message)
        topic.subscriptions.append(subscription)
        return subscription

    def _open(self, tenant: str, name: str) -> _Topic:
        topics = self._tenants.get(tenant, {})
        if name not in topics:
            if len(topics) >= self._limits.topics_max:
                raise TooMany(
                    f"topic {name!r:.80}: the tenant has {len(topics)} topics already; "
                    f"at most {self._limits.topics_max} (topics_max)"
                )
            topics[name] = _Topic(_Line(self._limits))
            self._tenants[tenant] = topics
        return topics[name]

    def _remove(self, subscription: Subscription) -> None:
        topics = self._tenants[subscription.tenant]
        topic = topics[subscription.topic]
        topic.subscriptions.remove(subscription)
        if not topic.subscriptions:
            del topics[subscription.topic]
        if not topics:
            del self._tenants[subscription.tenant]
