"""A sequence that its model keeps in the running batch: what it has said, and when it stops.

Pure. The model loop tells it each token and asks for the next pass; its guest reads it in chunks
and is woken when one is due: after the first token of a text, then after so many tokens or so long,
at the end at once. It must never be woken for a single token in between.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from enum import Enum

import attrs

from gpu_worker import wire
from gpu_worker.wire.fragments import COLUMNS, Fragment, adjustment_counts, written_counts
from gpu_worker.wire.outputs import extended
from pie_trio.config import Limits
from pie_trio.errors import PieError
from pie_trio.messages import ForwardPass, Listed, PageHandle, PageId, PassResult
from pie_trio.penalties import Adjusting


class FinishReason(Enum):
    """As in `pie:ext/generate`."""

    STOP = "stop"
    LENGTH = "length"
    PAGES = "pages"
    CANCELLED = "cancelled"
    FAILED = "failed"


@attrs.frozen
class DecodeRules:
    """What ends a sequence."""

    stop_tokens: frozenset[int]
    stop_sequences: tuple[tuple[int, ...], ...]
    tokens_max: int
    last_tokens: tuple[int, ...] = attrs.field(init=False)  # after any other it goes on

    @last_tokens.default
    def _last_tokens(self) -> tuple[int, ...]:
        return tuple(sorted({*self.stop_tokens, *(each[-1] for each in self.stop_sequences)}))


@attrs.frozen(eq=False)
class DecodeDraft:
    """A sequence as the guest described it, but for its first pass."""

    reserve: tuple[PageHandle, ...]  # pages to grow into
    rules: DecodeRules
    wake: Callable[[], None]
    adjusting: Adjusting | None = None
    goes_on: bool = False  # the text has tokens already, so nobody waits for its first one


@attrs.define(eq=False)
class Decode:
    """One sequence from its first pass to its end."""

    rules: DecodeRules
    pages: tuple[PageId, ...]  # those of the first pass, then those to grow into
    seed_of: Callable[[int], int]  # of a step, counted from the first pass
    wake: Callable[[], None]
    interrupt: Callable[[], None]  # of the steps that its worker executes without asking
    limits: Limits
    first_slots: int  # that are written when the first pass has settled
    adjusting: Adjusting | None = None
    goes_on: bool = False
    _woken_at: float = 0.0  # or begun, if its guest was not woken yet
    tokens: list[int] = attrs.field(factory=list, init=False)
    logprobs: list[Listed] = attrs.field(factory=list, init=False)  # of each token, if wanted
    reason: FinishReason | None = attrs.field(default=None, init=False)
    failure: PieError | None = attrs.field(default=None, init=False)
    _is_stopping: bool = attrs.field(default=False, init=False)
    _is_due: bool = attrs.field(default=False, init=False)
    _steps: int = attrs.field(default=0, init=False)
    _read: int = attrs.field(default=0, init=False)
    _fragment: Fragment | None = attrs.field(default=None, init=False)

    # --- what its guest calls

    @property
    def is_ready(self) -> bool:
        return self._is_due or self.reason is not None

    @property
    def numbers_used(self) -> int:
        """Of passes; one that has not ended has taken all that it may need."""
        return self.rules.tokens_max if self.reason is None else self._steps

    @property
    def unread(self) -> int:
        return len(self.tokens) - self._read

    def read(self, count: int) -> list[int]:
        """The next tokens; none while there are none."""
        found = self.tokens[self._read : self._read + count]
        self._read += len(found)
        self._is_due = self._is_due and bool(self.unread)
        return found

    def truncate(self, keep: int) -> range:
        """Forgets the tokens from there on; the slots of the sequence that held those."""
        end = self.first_slots + len(self.tokens) - 1
        del self.tokens[keep:], self.logprobs[keep:]
        self._read = min(self._read, keep)
        return range(self.first_slots + max(keep - 1, 0), end)

    def stop(self) -> int:
        """It ends with the steps in flight; how many tokens there are so far."""
        if self.reason is None:
            self._is_stopping = True
            self.interrupt()
        return len(self.tokens)

    # --- what the model loop calls

    @property
    def is_first_due(self) -> bool:
        """Its next token is the first of a text, for which somebody waits."""
        return not (self.tokens or self.goes_on)

    def steps_left(self, page_size: int) -> int:
        """How many more there are at most."""
        room = len(self.pages) * page_size - (self.first_slots + len(self.tokens) - 1)
        return min(self.rules.tokens_max - len(self.tokens), room)

    def take(
        self, results: Sequence[PassResult], page_size: int, now: float, is_chunk: bool = False
    ) -> int:
        """How many of these steps are part of it; a whole chunk is due at once."""
        before = self._steps
        for result in results:
            self._append(result, page_size)
            if self.reason is not None:
                break
        if self.reason is None and self._is_stopping:
            self.reason = FinishReason.CANCELLED
        is_due = is_chunk or self._makes_a_chunk(now)
        if self.reason is not None or (not self._is_due and is_due):
            self._is_due = True
            self._woken_at = now
            self.wake()
        return self._steps - before

    def _append(self, result: PassResult, page_size: int) -> None:
        (token,) = result.tokens
        self.tokens.append(token)
        self.logprobs += result.logprobs
        if self.adjusting is not None:
            self.adjusting.wrote((token,))
        self._steps += 1
        slots = self.first_slots + len(self.tokens) - 1
        has_room = slots < len(self.pages) * page_size
        self.reason = FinishReason.STOP if result.is_closed else self._reason(token, has_room)

    def _makes_a_chunk(self, now: float) -> bool:
        return (
            (self._steps == 1 and not self.goes_on)
            or self.unread >= self.limits.decode_chunk_tokens
            or now - self._woken_at >= self.limits.decode_chunk_seconds
        )

    def fail(self, error: PieError) -> None:
        """It ends otherwise than by a token."""
        if self.reason is None:
            self.reason, self.failure = FinishReason.FAILED, error
            self.wake()

    def _reason(self, token: int, has_room: bool) -> FinishReason | None:
        rules, tokens = self.rules, self.tokens
        if token in rules.stop_tokens:
            return FinishReason.STOP
        if any(tuple(tokens[-len(each) :]) == each for each in rules.stop_sequences):
            return FinishReason.STOP
        if len(tokens) >= rules.tokens_max:
            return FinishReason.LENGTH
        return None if has_room else FinishReason.PAGES

    def place(self, before: ForwardPass, steps: int) -> tuple[int, int]:
        """So many steps behind this one: how many pages there are then, and the last's length."""
        pages, last = len(before.pages), before.last_page_length + steps
        more = (last - 1) // before.page_size
        return pages + more, last - more * before.page_size

    def next_step(
        self, before: ForwardPass, now: float, steps: int = 1
    ) -> tuple[ForwardPass, wire.Request]:
        """The pass that reads the newest token, so many steps behind this one; its request."""
        step = self._next_pass(before, now, steps)
        return step, self._request(step)

    def _next_pass(self, before: ForwardPass, now: float, steps: int) -> ForwardPass:
        count, last = self.place(before, steps)
        pages = before.pages if count == len(before.pages) else self.pages[:count]
        position = before.positions[-1] + steps
        mask = before.mask
        if mask is not None:
            mask = (_grown(mask[-1], (len(pages) - 1) * before.page_size + last),)
        return ForwardPass(
            owner=before.owner,
            queue=before.queue,
            number=before.number + steps,
            priority=before.priority,
            tokens=(self.tokens[-1],),
            positions=(position,),
            pages=pages,
            page_size=before.page_size,
            last_page_length=last,
            mask=mask,
            outputs=self._outputs(before.outputs),
            embed_outputs=(),
            copies=(),
            pins=self.pages,
            embed_pins=(),
            seed=self.seed_of(len(self.tokens)),
            submitted_at=now,
            reply=before.reply,
            decode=self,
            grammar=before.grammar,
        )

    def _outputs(self, before: tuple[wire.OutputRow, ...]) -> tuple[wire.OutputRow, ...]:
        (output,) = before
        if output.written:
            output = attrs.evolve(output, written=extended(output.written, self.tokens[-1]))
        if self.adjusting is not None:
            records = bytes(self.adjusting.records)
            return (attrs.evolve(output, row=0, adjustments=records),)
        return (output,) if output.row == 0 else (attrs.evolve(output, row=0),)

    def _request(self, step: ForwardPass) -> wire.Request:
        """The request of a step; all but the row and the pages is encoded only once."""
        old = self._fragment
        prepared = None if old is None or step.mask is not None else _patched(old, step)
        request = step.request(prepared)
        self._fragment = request.fragment
        return request


def refuse(forward: ForwardPass, error: PieError) -> None:
    """A pass, and the sequence of which it is a step."""
    if not forward.reply.is_filled:
        forward.reply.refuse(error)
    if forward.decode is not None:
        forward.decode.fail(error)


def _grown(row: Sequence[int], end: int) -> tuple[int, ...]:
    """What a token sees that sees what this row did, and itself."""
    if row[-1] == end - 1:
        return (*row[:-1], end)
    return (*row, end - 1, end)


def _patched(fragment: Fragment, step: ForwardPass) -> Fragment:
    _tokens, _positions, pages, *rest = fragment.columns
    fresh = step.pages[fragment.pages :]
    if fresh:
        pages += struct.pack(f"<{len(fresh)}i", *fresh)
    columns = (
        struct.pack("<i", step.tokens[0]),
        struct.pack("<i", step.positions[0]),
        pages,
        *rest,
    )
    patched = attrs.evolve(fragment, columns=columns, pages=len(step.pages))
    (output,) = step.outputs
    return _controlled(patched, output) if output.adjustments or output.written else patched


def _controlled(fragment: Fragment, output: wire.OutputRow) -> Fragment:
    columns = list(fragment.columns)
    columns[COLUMNS.index("adjustments")] = output.adjustments
    columns[COLUMNS.index("written")] = output.written
    return attrs.evolve(
        fragment,
        columns=tuple(columns),
        adjustments=adjustment_counts((output,)),
        written=written_counts((output,)),
    )
