"""All that the host functions know of one instance, and what the host holds on its behalf.

Owns the return value and the account of host memory; everything else is handed in. It dies with
its instance: subscriptions, tickets and blobs close with the guest's resource table.
It must never wait by itself: the functions that are given it do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import attrs

from pie_trio.config import Limits
from pie_trio.errors import TooMany
from pie_trio.handles import ChildStarter, EngineFacts, Fetches, Inbox, ModelTable, Outlet
from pie_trio.messages import OutputEvent, Owner
from pie_trio.services.kvs import KeyValueStore
from pie_trio.services.topics import TopicBoard

if TYPE_CHECKING:
    from pie_trio.wasm.wasi.state import Sink, WasiState


class Awaited(Protocol):
    """An answer slot, whatever its answer is."""

    @property
    def is_filled(self) -> bool: ...
    async def wait(self) -> None: ...


@attrs.frozen(eq=False)
class ReplyPollable:
    """Ready when the answer or its refusal is there."""

    reply: Awaited
    from_client: bool = False

    def ready(self) -> bool:
        return self.reply.is_filled

    async def wait(self) -> None:
        await self.reply.wait()


@attrs.define(eq=False)
class HeldMemory:
    """What the host keeps for one guest outside of the guest's own memory, in bytes."""

    bytes_max: int
    bytes_held: int = attrs.field(default=0, init=False)

    def charge(self, function: str, size: int) -> None:
        if self.bytes_held + size > self.bytes_max:
            raise TooMany(
                f"{function}: the host would hold {self.bytes_held + size} bytes for this guest; "
                f"at most {self.bytes_max} (guest_held_bytes): drop blobs, passes or results"
            )
        self.bytes_held += size

    @contextmanager
    def charged(self, function: str, size: int) -> Iterator[None]:
        """For what is made in the block; if it is not, nothing is held."""
        self.charge(function, size)
        try:
            yield
        except BaseException:
            self.refund(size)
            raise

    def refund(self, size: int) -> None:
        self.bytes_held -= size
        assert self.bytes_held >= 0, "nothing is given back twice"


@attrs.define(eq=False)
class InstanceHost:
    """The host side of one instance: the first argument of every host function."""

    owner: Owner
    arguments: tuple[str, ...]
    models: ModelTable
    outlet: Outlet
    inbox: Inbox
    topics: TopicBoard
    kvs: KeyValueStore
    children: ChildStarter
    fetches: Fetches
    facts: EngineFacts
    limits: Limits
    wasi: WasiState
    parent: str = ""  # the instance that has started it, unless a client has
    return_value: str = ""
    queues_open: int = attrs.field(default=0, init=False)
    held: HeldMemory = attrs.field(init=False)
    _waited_on: tuple[object, ...] = attrs.field(default=(), init=False)
    _waits_for_client: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.held = HeldMemory(self.limits.guest_held_bytes)
        self.wasi = attrs.evolve(
            self.wasi,
            stdout=self._waiting_for_client(self.wasi.stdout),
            stderr=self._waiting_for_client(self.wasi.stderr),
            waits_on=self.waits_on,
        )

    @property
    def client_waiting(self) -> bool:
        """Whether only a client or another instance can wake this one."""
        return self._waits_for_client or (
            bool(self._waited_on)
            and all(getattr(pollable, "from_client", False) for pollable in self._waited_on)
        )

    def waits_on(self, pollables: Sequence[object]) -> None:
        """Told before the guest waits for the first of these, and with none afterwards."""
        self._waited_on = tuple(pollables)

    @contextmanager
    def client_wait(self) -> Iterator[None]:
        """Around a wait that only a client or another instance can end."""
        self._waits_for_client = True
        try:
            yield
        finally:
            self._waits_for_client = False

    async def put(self, event: OutputEvent) -> None:
        """Writes to the client; waits while the client does not read."""
        self._waits_for_client = True
        try:
            await self.outlet.put(event)
        finally:
            self._waits_for_client = False

    def _waiting_for_client(self, sink: Sink) -> Sink:
        """The same sink; while it has no room, the client is what the guest waits for."""

        async def write(data: bytes) -> None:
            with self.client_wait():
                await sink(data)

        return write
