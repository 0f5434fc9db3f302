"""The handles that rooms pass to each other: having one is the permission.

These are the shapes that `wasm/host` and the gateway see; the actors implement them. A handle
never outlives the scope that opened it: afterwards its methods raise `Terminated` or refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import attrs

from pie_trio.decode import Decode, DecodeDraft
from pie_trio.errors import PieError
from pie_trio.fetches import FetchRequest, FetchResponse
from pie_trio.mailbox import Reply
from pie_trio.messages import (
    InstanceEnded,
    InstanceId,
    OutputEvent,
    PassDraft,
    PassResult,
    Priority,
    ResourceKind,
)

if TYPE_CHECKING:
    from pie_trio.services.grammar import Grammar, GrammarKind


@attrs.frozen
class ModelFacts:
    """What a guest may know of a model."""

    name: str
    service_id: int
    description: str
    traits: tuple[str, ...]
    prompt_template: str
    stop_tokens: tuple[str, ...]
    vocab_size: int
    page_size: int  # tokens a KV page
    pages: int  # of the whole worker
    batch_tokens: int
    distribution_max: int
    numeric: str = ""  # what it is computed with


class TokenizerLike(Protocol):
    """Pure and synchronous; long texts are the caller's to hand to a thread or not."""

    @property
    def vocab_size(self) -> int: ...
    def encode(self, text: str) -> list[int]: ...
    def decode(self, tokens: Sequence[int]) -> str: ...
    def vocab(self) -> tuple[list[int], list[bytes]]: ...


class ModelHandle(Protocol):
    """One model, as one instance sees it."""

    @property
    def facts(self) -> ModelFacts: ...
    @property
    def tokenizer(self) -> TokenizerLike: ...
    def render_chat(self, request_json: str) -> str:
        """`{"messages": [...], "add_generation_prompt": bool}` through the model's template."""
        ...

    async def compile_grammar(self, kind: GrammarKind, source: str) -> Grammar:
        """Raises `GuestFault` with where and why, or `TooMany`."""
        ...

    def create_queue(self) -> QueueHandle: ...


class QueueHandle(Protocol):
    """One command queue of one instance. Commands take effect in the order of the calls.

    Refusals (`PieError`) of the awaiting calls are raised at the caller. What runs later in
    queue order and fails ends the instance with that error: this interface has no results.
    """

    @property
    def model(self) -> ModelHandle: ...
    @property
    def priority(self) -> Priority: ...
    @priority.setter
    def priority(self, priority: Priority) -> None: ...
    async def allocate(self, kind: ResourceKind, count: int) -> list[int]:
        """Handles of fresh pages, reserved at once; may wait. Raises `OutOfPages`."""
        ...

    async def deallocate(self, kind: ResourceKind, handles: Sequence[int]) -> None:
        """The handles are void at once, the pages go back in queue order."""
        ...

    async def export(self, kind: ResourceKind, handles: Sequence[int], name: str) -> None: ...
    async def import_exported(self, kind: ResourceKind, name: str) -> list[int]: ...
    async def release_exported(self, kind: ResourceKind, name: str) -> None: ...
    async def all_exported(self, kind: ResourceKind) -> list[tuple[str, int]]: ...
    async def copy_page(self, source: int, target: int, tokens: int) -> None:
        """The first slots of a KV page, on the device; returns when its turn has come."""
        ...

    async def submit(self, draft: PassDraft) -> Reply[PassResult]:
        """Checks handles, copies shared pages before they are written, hands on. May wait for
        pages and for room; never for the pass itself. Raises `GuestFault`, `OutOfPages`."""
        ...

    async def start(self, draft: PassDraft, sequence: DecodeDraft) -> Decode:
        """Like `submit`; then the model goes on by itself, into pages that are reserved."""
        ...

    def truncate(self, decode: Decode, keep: int) -> None:
        """After its end: what was written behind so many tokens counts as never written."""
        ...

    async def synchronize(self) -> Reply[bool]:
        """Filled when every earlier command of this queue has completed."""
        ...

    async def debug_query(self, query: str) -> Reply[str]: ...


class Outlet(Protocol):
    """Where an instance's output goes. A full outlet makes the writer wait, and only it."""

    async def put(self, event: OutputEvent) -> None: ...


class Inbox(Protocol):
    """What clients send to an instance: in order, one receiver a message."""

    def ticket(self) -> Reply[str]:
        """A place in the line; filled when its message comes."""
        ...

    def withdraw(self, ticket: Reply[str]) -> None:
        """Leaves the line; a message that was delivered and not read goes back to its head."""
        ...

    def blob_ticket(self) -> Reply[bytes]: ...
    def withdraw_blob(self, ticket: Reply[bytes]) -> None: ...


class ChildHandle(Protocol):
    """A child of an instance. It ends when this is closed, or when its parent ends."""

    @property
    def ended(self) -> Reply[InstanceEnded]:
        """Filled when everything that it held is back."""
        ...

    @property
    def failure(self) -> PieError | None:
        """Of one that has ended: why it did not return."""
        ...

    @property
    def is_readable(self) -> bool:
        """Whether there is a message, or the end."""
        ...

    async def wait_readable(self) -> None:
        """Until something has changed; it may have been something else."""
        ...

    def receive(self) -> str | None: ...
    def send(self, message: str) -> None:
        """Raises `TooMany` and `Terminated`."""
        ...

    def cancel(self, reason: str) -> None: ...
    def close(self) -> None: ...


class ChildStarter(Protocol):
    """Starts programs inside of one instance."""

    async def start(
        self, program: str, arguments: Sequence[str], deadline_seconds: float | None
    ) -> ChildHandle:
        """Without a name, the program of the parent. Raises `PieError`."""
        ...


class FetchHandle(Protocol):
    """A request on its way. It ends when this is closed, or with its instance."""

    @property
    def reply(self) -> Reply[FetchResponse]: ...
    def close(self) -> None: ...


class Fetches(Protocol):
    """Makes the requests of one instance to other hosts."""

    def start(self, request: FetchRequest, charge: Callable[[int], None]) -> FetchHandle:
        """`charge` is told of each part of the answer that is kept. Raises `PieError`."""
        ...


@attrs.frozen
class EngineFacts:
    """What `runtime.debug-query` may tell an instance of a tenant."""

    version: str
    instance_count: Callable[[], int]
    running_instances: Callable[[str], list[InstanceId]]
    programs: Callable[[str], list[str]]


ModelTable = Mapping[str, ModelHandle]  # by name, in the order of the configuration
