"""A model, its queues and an instance's host in memory, for tests of the host functions.

`MemoryQueue` keeps real books of handles and leaves every answer to the test: nothing is filled
before the test says so. Inbox, outlet, topics, keys and tokenizer are the production ones.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

import pie_trio.services
from pie_trio.config import Limits
from pie_trio.decode import Decode, DecodeDraft
from pie_trio.errors import BadProgram, BadRequest, GuestFault, NoSuchExport
from pie_trio.fetches import FetchRequest
from pie_trio.handles import ChildHandle, EngineFacts, FetchHandle, ModelFacts, ModelHandle
from pie_trio.inbox import InstanceInbox
from pie_trio.mailbox import Reply
from pie_trio.messages import (
    InstanceId,
    Owner,
    PageId,
    PassDraft,
    PassResult,
    Priority,
    ResourceKind,
)
from pie_trio.outlet import OutputBuffer
from pie_trio.services.grammar import Grammar, GrammarKind, Grammars
from pie_trio.services.kvs import KeyValueStore
from pie_trio.services.model_store import pretend_model
from pie_trio.services.tokenizer import Tokenizer
from pie_trio.services.topics import TopicBoard
from pie_trio.wasm.host.interfaces import host_interfaces
from pie_trio.wasm.host.resources import Queue
from pie_trio.wasm.host.state import InstanceHost
from pie_trio.wasm.wasi.state import Sink, WasiState

FACTS = ModelFacts(
    name="small",
    service_id=7,
    description="a model in memory",
    traits=("input_text", "tokenize", "output_text", "kv_pages"),
    prompt_template="{{ messages }}",
    stop_tokens=("<|im_end|>",),
    vocab_size=300,
    page_size=4,
    pages=64,
    batch_tokens=32,
    distribution_max=16,
)


def pretend_tokenizer() -> Tokenizer:
    services = Path(next(iter(pie_trio.services.__path__)))
    return Tokenizer.from_file(services / "pretend_model" / "tokenizer.json")


def pretend_grammars() -> Grammars:
    return Grammars(pretend_model().path / "tokenizer.json", (258,), Limits())


@attrs.define(eq=False)
class MemoryModel:
    """Implements `handles.ModelHandle`."""

    facts: ModelFacts = FACTS
    tokenizer: Tokenizer = attrs.field(factory=pretend_tokenizer)
    queues: list[MemoryQueue] = attrs.field(factory=list)
    exports: dict[tuple[ResourceKind, str], int] = attrs.field(factory=dict)
    grammars: Grammars = attrs.field(factory=pretend_grammars)

    def render_chat(self, request_json: str) -> str:
        return request_json

    async def compile_grammar(self, kind: GrammarKind, source: str) -> Grammar:
        return self.grammars.compile(kind, source, self.facts.vocab_size)

    def create_queue(self) -> MemoryQueue:
        queue = MemoryQueue(self)
        self.queues.append(queue)
        return queue


@attrs.define(eq=False)
class MemoryQueue:
    """Implements `handles.QueueHandle`; answers are filled by the test."""

    model: MemoryModel
    priority: Priority = Priority.NORMAL
    owned: set[tuple[ResourceKind, int]] = attrs.field(factory=set)
    drafts: list[PassDraft] = attrs.field(factory=list)
    decodes: list[Decode] = attrs.field(factory=list)
    passes: list[Reply[PassResult]] = attrs.field(factory=list)
    barriers: list[Reply[bool]] = attrs.field(factory=list)
    queries: list[tuple[str, Reply[str]]] = attrs.field(factory=list)
    granted: int = 0

    async def allocate(self, kind: ResourceKind, count: int) -> list[int]:
        first = self.granted
        self.granted += count
        handles = list(range(first, self.granted))
        self.owned |= {(kind, handle) for handle in handles}
        return handles

    async def deallocate(self, kind: ResourceKind, handles: Sequence[int]) -> None:
        self._check(kind, handles)
        self.owned -= {(kind, handle) for handle in handles}

    async def export(self, kind: ResourceKind, handles: Sequence[int], name: str) -> None:
        await self.deallocate(kind, handles)
        self.model.exports[kind, name] = len(handles)

    async def import_exported(self, kind: ResourceKind, name: str) -> list[int]:
        if (kind, name) not in self.model.exports:
            raise NoSuchExport(f"there is no export named {name!r}")
        return await self.allocate(kind, self.model.exports[kind, name])

    async def release_exported(self, kind: ResourceKind, name: str) -> None:
        del self.model.exports[kind, name]

    async def all_exported(self, kind: ResourceKind) -> list[tuple[str, int]]:
        return [(name, count) for (of, name), count in self.model.exports.items() if of is kind]

    async def copy_page(self, source: int, target: int, tokens: int) -> None:
        self._check(ResourceKind.KV_PAGE, (source, target))

    async def submit(self, draft: PassDraft) -> Reply[PassResult]:
        self._check(ResourceKind.KV_PAGE, draft.pages)
        self.drafts.append(draft)
        self.passes.append(Reply())
        return self.passes[-1]

    async def start(self, draft: PassDraft, sequence: DecodeDraft) -> Decode:
        self._check(ResourceKind.KV_PAGE, (*draft.pages, *sequence.reserve))
        self.drafts.append(draft)
        pages = tuple(map(PageId, (*draft.pages, *sequence.reserve)))
        slots = (len(draft.pages) - 1) * FACTS.page_size + draft.last_page_length
        self.decodes.append(
            Decode(
                sequence.rules,
                pages,
                lambda _step: 0,
                sequence.wake,
                lambda: None,
                Limits(),
                slots,
                sequence.adjusting,
            )
        )
        return self.decodes[-1]

    def truncate(self, decode: Decode, keep: int) -> None:
        decode.truncate(keep)

    async def synchronize(self) -> Reply[bool]:
        self.barriers.append(Reply())
        return self.barriers[-1]

    async def debug_query(self, query: str) -> Reply[str]:
        self.queries.append((query, Reply()))
        return self.queries[-1][1]

    def _check(self, kind: ResourceKind, handles: Sequence[int]) -> None:
        for handle in handles:
            if (kind, handle) not in self.owned:
                raise GuestFault(f"handle {handle} is not the guest's")


@attrs.define(eq=False)
class World:
    """What the instances of one engine share, and a host for each instance that is asked for."""

    limits: Limits = attrs.field(factory=Limits)
    models: dict[str, ModelHandle] = attrs.field(factory=lambda: {"small": MemoryModel()})
    topics: TopicBoard = attrs.field(init=False)
    kvs: KeyValueStore = attrs.field(init=False)
    hosts: list[InstanceHost] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.topics = TopicBoard(self.limits)
        self.kvs = KeyValueStore(self.limits)

    def host(
        self,
        tenant: str = "local",
        arguments: tuple[str, ...] = (),
        console: Sink | None = None,
    ) -> InstanceHost:
        number = len(self.hosts)
        owner = Owner(number, InstanceId(f"instance-{number}"), tenant, "program@1.0.0")
        host = InstanceHost(
            owner=owner,
            arguments=arguments,
            models=self.models,
            outlet=OutputBuffer(self.limits),
            inbox=InstanceInbox(self.limits),
            topics=self.topics,
            kvs=self.kvs,
            children=NoChildren(),
            fetches=NoFetches(),
            facts=self._facts(),
            limits=self.limits,
            wasi=_wasi(console or _swallow),
        )
        self.hosts.append(host)
        return host

    def _facts(self) -> EngineFacts:
        return EngineFacts(
            version="1.2.3",
            instance_count=lambda: len(self.hosts),
            running_instances=lambda tenant: [
                host.owner.instance for host in self.hosts if host.owner.tenant == tenant
            ],
            programs=lambda tenant: [f"program-of-{tenant}@1.0.0"],
        )


class NoChildren:
    """Implements `handles.ChildStarter`: no program is installed."""

    async def start(
        self, program: str, _arguments: Sequence[str], _deadline_seconds: float | None
    ) -> ChildHandle:
        raise BadProgram(f"there is no program {program!r}")


class NoFetches:
    """Implements `handles.Fetches`: no host is allowed."""

    def start(self, request: FetchRequest, _charge: Callable[[int], None]) -> FetchHandle:
        raise BadRequest(f"{request.url} is not on the allow list")


async def _swallow(_data: bytes) -> None:
    """A sink that keeps nothing."""


def _wasi(console: Sink) -> WasiState:
    return WasiState(
        stdout=console, stderr=console, random=random.Random(1), wall=lambda: 1_000_000.0
    )


def call(host: InstanceHost, function: str, *arguments: Any) -> Any:
    """Calls `interface#function` as the linker does; a coroutine is the caller's to await."""
    interface, name = function.split("#")
    package = "" if interface.startswith("wasi:") else "inferlet:"
    return host_interfaces()[package + interface][name](host, *arguments)


def inbox_of(host: InstanceHost) -> InstanceInbox:
    """The inbox as its clients see it."""
    assert isinstance(host.inbox, InstanceInbox), "the world's inboxes are the real ones"
    return host.inbox


def outlet_of(host: InstanceHost) -> OutputBuffer:
    """The output as its reader sees it."""
    assert isinstance(host.outlet, OutputBuffer), "the world's outlets are the real ones"
    return host.outlet


def open_queue(host: InstanceHost) -> tuple[Queue, MemoryQueue]:
    """A queue of the only model, as the guest and as the test see it."""
    model = call(host, "core/runtime#get-model", "small")
    queue: Queue = call(host, "core/common#[method]model.create-queue", model)
    assert isinstance(queue.handle, MemoryQueue), "the world's models are in memory"
    return queue, queue.handle
