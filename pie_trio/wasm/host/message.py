"""`inferlet:core/message`: to and from the client, and between instances of a tenant.

Owns the guest's places in the lines of its inbox and its subscriptions; both are left synchronously
when the guest drops them or dies. A message that finds no room makes its sender wait, and only it.
It must never lose a message that was accepted, nor hold up anybody but the sender.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import attrs
import trio

from pie_trio.messages import OutputEvent
from pie_trio.services.topics import Subscription
from pie_trio.wasm.host.faults import bounded_text
from pie_trio.wasm.host.resources import Blob, Receipt, ReceiptPollable
from pie_trio.wasm.host.state import InstanceHost

if TYPE_CHECKING:
    from pie_trio.wasm.linker import HostFunction


@attrs.define(eq=False)
class Arrivals:
    """Wakes whoever waits for the next message of a subscription."""

    _event: trio.Event = attrs.field(factory=trio.Event)

    def tell(self) -> None:
        self._event.set()
        self._event = trio.Event()

    async def wait(self) -> None:
        await self._event.wait()


@attrs.frozen(eq=False)
class Listener:
    """The guest's view of a subscription."""

    subscription: Subscription
    arrivals: Arrivals

    def close(self) -> None:
        self.subscription.close()


@attrs.frozen(eq=False)
class ListenerPollable:
    """Ready while a message is unread, and for ever after the subscription was cancelled."""

    listener: Listener
    from_client: bool = attrs.field(default=True, init=False)

    def ready(self) -> bool:
        return self.listener.subscription.has_message or self.listener.subscription.is_closed

    async def wait(self) -> None:
        while not self.ready():
            await self.listener.arrivals.wait()


async def send(host: InstanceHost, message: str) -> None:
    """Cancelled while it waits for room: the message was not sent."""
    limit = host.limits.message_bytes
    bounded_text("send", "message", message, limit, "message_bytes")
    await host.put(OutputEvent("message", message))


def receive(host: InstanceHost) -> Receipt[str]:
    return Receipt(host.inbox.ticket(), host.inbox.withdraw)


async def send_blob(host: InstanceHost, blob: Blob) -> None:
    """The guest gave its blob away: it is gone for it, whatever happens."""
    try:
        await host.put(OutputEvent("file", "", blob.data))
    finally:
        blob.close()


def receive_blob(host: InstanceHost) -> Receipt[bytes]:
    return Receipt(host.inbox.blob_ticket(), host.inbox.withdraw_blob)


async def broadcast(host: InstanceHost, topic: str, message: str) -> None:
    """Waits until every subscriber has a place for it.

    Cancelled: those that have it keep it, the others do not get it.
    """
    limits = host.limits
    bounded_text("broadcast", "topic", topic, limits.name_bytes, "name_bytes")
    bounded_text("broadcast", "message", message, limits.message_bytes, "message_bytes")
    delivered = trio.Event()
    publication = host.topics.publish(host.owner.tenant, topic, message, delivered.set)
    if publication.is_delivered:
        return
    try:
        with host.client_wait():
            await delivered.wait()
    finally:
        publication.withdraw()


def subscribe(host: InstanceHost, topic: str) -> Listener:
    """The first subscriber of a topic also gets what was sent before it came."""
    bounded_text("subscribe", "topic", topic, host.limits.name_bytes, "name_bytes")
    arrivals = Arrivals()
    subscription = host.topics.subscribe(host.owner.tenant, topic, arrivals.tell)
    return Listener(subscription, arrivals)


def subscription_pollable(_host: InstanceHost, listener: Listener) -> ListenerPollable:
    return ListenerPollable(listener)


def subscription_get(_host: InstanceHost, listener: Listener) -> str | None:
    """The next message, each once; none if there is none yet."""
    return listener.subscription.take()


def unsubscribe(_host: InstanceHost, listener: Listener) -> None:
    listener.close()


def receive_pollable(_host: InstanceHost, receipt: Receipt[str]) -> ReceiptPollable:
    return ReceiptPollable(receipt)


def receive_get(_host: InstanceHost, receipt: Receipt[str]) -> str | None:
    """None until the message came; then the same message at every call."""
    return receipt.read()


MESSAGE: Mapping[str, HostFunction] = MappingProxyType(
    {
        "send": send,
        "receive": receive,
        "send-blob": send_blob,
        "receive-blob": receive_blob,
        "broadcast": broadcast,
        "subscribe": subscribe,
        "[method]subscription.pollable": subscription_pollable,
        "[method]subscription.get": subscription_get,
        "[method]subscription.unsubscribe": unsubscribe,
        "[method]receive-result.pollable": receive_pollable,
        "[method]receive-result.get": receive_get,
    }
)
