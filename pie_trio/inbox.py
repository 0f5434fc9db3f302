"""What clients send to one instance: messages and blobs, in order, one receiver each.

It owns what was delivered and not received yet, within bounds. A full inbox refuses the client's
delivery, so that a guest that never receives costs a bounded amount. Nothing here waits, and a
message that was handed to a ticket nobody read goes back to the head of the line.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sized
from typing import Generic, TypeVar

import attrs

from pie_trio.config import Limits
from pie_trio.errors import BadRequest
from pie_trio.mailbox import Reply

M = TypeVar("M", bound=Sized)


@attrs.define(eq=False)
class _Line(Generic[M]):
    """Messages or tickets, never both: whoever comes second finds the other at the head."""

    what: str
    count_max: int
    bytes_max: int
    messages: deque[M] = attrs.field(factory=deque, init=False)
    tickets: deque[Reply[M]] = attrs.field(factory=deque, init=False)
    waiting_bytes: int = attrs.field(default=0, init=False)

    def deliver(self, message: M) -> None:
        if self.tickets:
            self.tickets.popleft().fill(message)
            return
        if len(self.messages) >= self.count_max:
            raise BadRequest(f"the instance has {self.count_max} unread {self.what} and is full")
        if self.messages and self.waiting_bytes + len(message) > self.bytes_max:
            raise BadRequest(f"the unread {self.what} of the instance reached {self.bytes_max} B")
        self.messages.append(message)
        self.waiting_bytes += len(message)

    def ticket(self) -> Reply[M]:
        ticket: Reply[M] = Reply()
        if self.messages:
            message = self.messages.popleft()
            self.waiting_bytes -= len(message)
            ticket.fill(message)
        else:
            self.tickets.append(ticket)
        return ticket

    def withdraw(self, ticket: Reply[M]) -> None:
        if not ticket.is_filled:
            self.tickets.remove(ticket)
        elif self.tickets:
            self.tickets.popleft().fill(ticket.take())
        else:
            message = ticket.take()
            self.messages.appendleft(message)
            self.waiting_bytes += len(message)


class InstanceInbox:
    """Implements `handles.Inbox` for the guest; `deliver` and `deliver_blob` are the client's."""

    def __init__(self, limits: Limits) -> None:
        self._signals = _Line[str]("messages", limits.signals_waiting, limits.signals_bytes)
        self._blobs = _Line[bytes]("blobs", limits.blobs_waiting, limits.blobs_bytes)

    @property
    def is_awaited(self) -> bool:
        """Whether the guest waits for a message that has not come."""
        return bool(self._signals.tickets)

    def deliver(self, text: str) -> None:
        self._signals.deliver(text)

    def deliver_blob(self, data: bytes) -> None:
        self._blobs.deliver(data)

    def ticket(self) -> Reply[str]:
        return self._signals.ticket()

    def withdraw(self, ticket: Reply[str]) -> None:
        """Only for a ticket whose message nobody read."""
        self._signals.withdraw(ticket)

    def blob_ticket(self) -> Reply[bytes]:
        return self._blobs.ticket()

    def withdraw_blob(self, ticket: Reply[bytes]) -> None:
        """Only for a ticket whose blob nobody read."""
        self._blobs.withdraw(ticket)
