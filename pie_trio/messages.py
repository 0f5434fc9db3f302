"""Every in-process message, in the order in which a forward pass meets them.

Messages are frozen, validated at birth and carry data, never a key to look up later. Answers go
straight into the `Reply` that the message brings; nothing travels upwards through a mailbox.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, NewType

import attrs

from gpu_worker.wire import OutputRow, Request

if TYPE_CHECKING:  # pure services import this module, and reach Trio by no chain of imports
    from gpu_worker.wire.fragments import Fragment
    from pie_trio.decode import Decode
    from pie_trio.mailbox import Reply
    from pie_trio.services.grammar import Grammar

InstanceId = NewType("InstanceId", str)  # what clients see: a UUID
PageId = NewType("PageId", int)  # a slot of the worker; guests never see it
PageHandle = NewType("PageHandle", int)  # a guest's number for one of its pages


class ResourceKind(IntEnum):
    """The resource types of `inferlet:core/common`."""

    KV_PAGE = 0
    EMBEDDING = 1
    ADAPTER = 2


class Priority(IntEnum):
    LOW = 0
    NORMAL = 1
    HIGH = 2


@attrs.frozen
class Owner:
    """Who holds pages: one instance. Equality is identity of the launch."""

    number: int  # launch ordinal in this engine; seeds derive from it
    instance: InstanceId
    tenant: str
    program: str


@attrs.frozen(eq=False)
class PassDraft:
    """A forward pass as the guest described it, checked against the rules that need no pool."""

    tokens: tuple[int, ...]  # one a row; -1-h: the embedding of handle h
    positions: tuple[int, ...]
    pages: tuple[PageHandle, ...]
    last_page_length: int
    mask: tuple[tuple[int, ...], ...] | None  # attended intervals a row, flattened; None: causal
    outputs: tuple[OutputRow, ...]
    embed_outputs: tuple[tuple[int, int], ...]  # (row, embedding handle)
    seed: int | None = None  # of its row 0, if the guest has chosen one
    grammar: Grammar | None = None  # that its outputs name


Listed = tuple[list[int], list[float]]  # tokens, and their probabilities or the logarithms


@attrs.frozen
class PassResult:
    """What the guest asked for, in the order in which it asked."""

    tokens: tuple[int, ...]
    distributions: tuple[Listed, ...]
    logprobs: tuple[Listed, ...] = ()  # of each token, if wanted: its own, then the likeliest
    is_closed: bool = False  # its grammar lets nothing but an end follow its token


@attrs.frozen(eq=False)
class ForwardPass:
    """A pass whose pages are resolved, pinned and owned; on its way to the worker."""

    owner: Owner
    queue: int  # ordinal of the queue in its instance
    number: int  # ordinal of the pass in its queue
    priority: Priority
    tokens: tuple[int, ...]  # one a row; -1-s: embedding slot s
    positions: tuple[int, ...]
    pages: tuple[PageId, ...]
    page_size: int
    last_page_length: int
    mask: tuple[tuple[int, ...], ...] | None
    outputs: tuple[OutputRow, ...]
    embed_outputs: tuple[tuple[int, int], ...]
    copies: tuple[tuple[PageId, PageId], ...]  # source, target: copied before the pass
    pins: tuple[PageId, ...]  # KV pages that it reads or writes: they stay until it has settled
    embed_pins: tuple[PageId, ...]
    seed: int
    submitted_at: float  # Trio time
    reply: Reply[PassResult]
    # The sequence of which it is a step; the reply is then filled when that ends.
    decode: Decode | None = None
    grammar: Grammar | None = None

    def request(self, prepared: Fragment | None = None) -> Request:
        """All its rows for the worker; what is `prepared` is not encoded again."""
        return Request(
            tokens=self.tokens,
            positions=self.positions,
            pages=self.pages,
            last_page_length=self.last_page_length,
            mask=self.mask,
            outputs=self.outputs,
            embed_outputs=self.embed_outputs,
            seed=self.seed,
            prepared=prepared,
        )


@attrs.frozen(eq=False)
class Ping:
    """To a model: an empty batch through the worker and back, to measure the way."""

    reply: Reply[str]


@attrs.frozen(eq=False)
class CopyPage:
    """To a model: copy this page on the device before all passes that have not left yet."""

    owner: Owner
    source: PageId
    target: PageId


ModelMessage = ForwardPass | Ping | CopyPage


@attrs.frozen
class InstanceEnded:
    """How an instance ended. `error` is None when it returned."""

    instance: InstanceId
    value: str
    error: str | None
    error_kind: str | None  # name of the exception class that says whose fault it was


@attrs.frozen
class OutputEvent:
    """One thing that an instance tells its client: the `process_event` of the client protocol."""

    kind: str  # stdout, stderr, message, file, return or error
    value: str
    data: bytes = b""  # of a file


@attrs.frozen(eq=False)
class AllocatePages:
    """To the resource manager, over the asker's lease."""

    kind: ResourceKind
    count: int
    reply: Reply[list[int]]


@attrs.frozen(eq=False)
class SubmitPass:
    """To a command queue: hand this pass on when all before it has been handed on."""

    forward: ForwardPass


@attrs.frozen(eq=False)
class RunCommand:
    """To a command queue: do this when everything before it has completed.

    `deed` is synchronous and may raise a `PieError`, which refuses the reply.
    """

    deed: Callable[[bool], object]  # is told whether all passes before it succeeded
    reply: Reply[object]
    is_barrier: bool = False  # tells of a failed pass before it, and so forgets it


QueueCommand = SubmitPass | RunCommand
