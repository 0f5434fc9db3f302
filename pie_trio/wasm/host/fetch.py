"""`pie:ext/fetch`: requests to the hosts on the engine's allow list.

A pending request is the guest's: dropping it, or dying, ends it and closes its connection. What
came back is charged to the guest until it drops the request. Refusals are values.
It must never reach a host that is not on the list, by whatever name or redirect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import attrs

from pie_trio.errors import PieError
from pie_trio.fetches import FetchRequest
from pie_trio.handles import FetchHandle
from pie_trio.wasm.codec import Err
from pie_trio.wasm.host.ext_errors import error_value
from pie_trio.wasm.host.state import HeldMemory, InstanceHost, ReplyPollable

if TYPE_CHECKING:
    from pie_trio.wasm.linker import HostFunction

SEND = "fetch.send"


@attrs.define(eq=False)
class Pending:
    """The guest's view of a request, and what is kept for it."""

    _held: HeldMemory
    _charge: int = attrs.field(default=0, init=False)
    _handle: FetchHandle | None = attrs.field(default=None, init=False)

    @property
    def handle(self) -> FetchHandle:
        assert self._handle is not None, "a guest gets a request only after it has begun"
        return self._handle

    def begin(self, handle: FetchHandle) -> None:
        self._handle = handle

    def charge(self, size: int) -> None:
        self._held.charge(SEND, size)
        self._charge += size

    def close(self) -> None:
        if self._handle is not None:
            self._handle.close()
        self._held.refund(self._charge)
        self._charge = 0


def send(
    host: InstanceHost,
    method: str,
    url: str,
    headers: Sequence[tuple[str, str]],
    body: bytes,
    timeout_ms: int | None,
) -> Pending | Err:
    """On its way when this returns."""
    asked = FetchRequest(
        method=method,
        url=url,
        headers=tuple((name, value) for name, value in headers),
        body=bytes(body),
        timeout_seconds=None if timeout_ms is None else timeout_ms / 1000,
    )
    pending = Pending(host.held)
    try:
        pending.charge(len(asked.body))
        pending.begin(host.fetches.start(asked, pending.charge))
    except PieError as error:
        pending.close()
        return Err(error_value(error))
    return pending


def pollable(_host: InstanceHost, pending: Pending) -> ReplyPollable:
    return ReplyPollable(pending.handle.reply)


def get(_host: InstanceHost, pending: Pending) -> Mapping[str, Any] | Err | None:
    """None until it came; then the same answer at every call."""
    reply = pending.handle.reply
    if not reply.is_filled:
        return None
    try:
        response = reply.take()
    except PieError as error:
        return Err(error_value(error))
    return {
        "status": response.status,
        "url": response.url,
        "headers": list(response.headers),
        "body": response.body,
    }


FETCH: Mapping[str, HostFunction] = MappingProxyType(
    {
        "send": send,
        "[method]pending.pollable": pollable,
        "[method]pending.get": get,
    }
)
