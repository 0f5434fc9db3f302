"""A forward pass while the guest describes it, and the whole check before it leaves.

Owns the lists that the setters fill; what they hold is charged to the guest until the pass is
executed or dropped. A pass that is refused is unchanged and nothing of it was sent.
It must never hand on a draft that a worker could fail on: every number in it has been checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import attrs
import trio

from gpu_worker.wire import ADJUSTMENT, OutputRow, SamplerKind
from pie_trio.config import Limits
from pie_trio.errors import GuestFault
from pie_trio.handles import ModelFacts
from pie_trio.mailbox import Reply
from pie_trio.messages import PageHandle, PassDraft, PassResult
from pie_trio.services.grammar import Grammar
from pie_trio.services.pass_chunks import chosen_seed
from pie_trio.wasm.host.faults import each_once, fault
from pie_trio.wasm.host.masks import attended_intervals, is_causal
from pie_trio.wasm.host.resources import Queue
from pie_trio.wasm.host.state import HeldMemory

VALUE_BYTES = 40  # of one integer in a list
EXECUTE = "forward-pass.execute"
_ROWS_BETWEEN_CHECKPOINTS = 256


@attrs.define(eq=False)
class PassBuilder:
    """A pass being described. Invariant: `_values` is what its lists are charged for."""

    queue: Queue
    _held: HeldMemory
    tokens: list[int] = attrs.field(factory=list, init=False)  # -1-h: embedding h
    positions: list[int] = attrs.field(factory=list, init=False)
    pages: Sequence[int] = attrs.field(default=(), init=False)
    last_page_length: int = attrs.field(default=0, init=False)
    mask: Sequence[Sequence[int]] | None = attrs.field(default=None, init=False)
    mask_runs: int = attrs.field(default=0, init=False)
    outputs: list[OutputRow] = attrs.field(factory=list, init=False)
    embed_outputs: list[tuple[int, int]] = attrs.field(factory=list, init=False)
    seed: int | None = attrs.field(default=None, init=False)
    logprobs: int = attrs.field(default=0, init=False)  # of each token, its own included
    adjustments: dict[int, bytes] = attrs.field(factory=dict, init=False)  # by the row
    written: dict[int, bytes] = attrs.field(factory=dict, init=False)  # texts under `grammar`
    grammar: Grammar | None = attrs.field(default=None, init=False)
    _values: int = attrs.field(default=0, init=False)

    @property
    def facts(self) -> ModelFacts:
        return self.queue.handle.model.facts

    def charge(self, function: str, values: int) -> None:
        self._held.charge(function, values * VALUE_BYTES)
        self._values += values

    def refund(self, values: int) -> None:
        self._held.refund(values * VALUE_BYTES)
        self._values -= values

    def adjust(self, function: str, row: int, records: bytes) -> None:
        self.charge(function, len(records) // 4)
        self.refund(len(self.adjustments.get(row, b"")) // 4)
        self.adjustments[row] = records

    def restrict(self, function: str, row: int, grammar: Grammar, written: bytes) -> None:
        if self.grammar not in (None, grammar):
            raise fault(function, "the constraint", "another one", "one for all rows of a pass")
        self.charge(function, len(written) // 4)
        self.refund(len(self.written.get(row, b"")) // 4)
        self.grammar, self.written[row] = grammar, written

    def clear(self) -> None:
        """Empty lists again, so that the pass can be described anew."""
        self.refund(self._values)
        self.tokens, self.positions, self.pages = [], [], ()
        self.mask, self.mask_runs = None, 0
        self.outputs, self.embed_outputs = [], []
        self.seed, self.logprobs, self.adjustments = None, 0, {}
        self.written, self.grammar = {}, None

    def close(self) -> None:
        self.clear()


@attrs.define(eq=False)
class PassAnswer:
    """The result of an executed pass; each of its lists is given out once."""

    reply: Reply[PassResult]
    _held: HeldMemory
    _charge: int
    tokens_taken: bool = attrs.field(default=False, init=False)
    distributions_taken: bool = attrs.field(default=False, init=False)
    logprobs_taken: bool = attrs.field(default=False, init=False)

    def close(self) -> None:
        self._held.refund(self._charge)
        self._charge = 0


def answer_bytes(outputs: Sequence[OutputRow]) -> int:
    """An upper bound of what the answer to these outputs takes."""
    heads = sum([2 * row.top_k for row in outputs if row.kind is SamplerKind.DISTRIBUTION])
    logprobs = sum([2 * row.logprobs for row in outputs])
    return (heads + logprobs + len(outputs)) * VALUE_BYTES


def log_probability_count(function: str, wanted: int, limits: Limits) -> int:
    """Of each token, when those of so many of the likeliest are wanted beside its own."""
    if wanted > limits.logprobs_max:
        raise fault(function, "logprobs", wanted, f"at most {limits.logprobs_max} (logprobs_max)")
    return 1 + wanted


async def draft_of(builder: PassBuilder, limits: Limits) -> PassDraft:
    """The pass as a checked draft. Its guest waits meanwhile, so nobody changes the lists."""
    rows = len(builder.tokens)
    if rows == 0:
        raise GuestFault(f"{EXECUTE}: the pass has no input: call input-tokens or input-embeddings")
    context = _context_of(builder, rows)
    _check_outputs(builder, rows)
    outputs = _controlled_outputs(builder, limits)
    return PassDraft(
        tokens=tuple(builder.tokens),
        positions=tuple(builder.positions),
        pages=cast("tuple[PageHandle, ...]", tuple(builder.pages)),
        last_page_length=builder.last_page_length,
        mask=await _intervals_of(builder.mask, rows, context),
        outputs=outputs,
        embed_outputs=tuple(builder.embed_outputs),
        seed=_seed_of(builder),
        grammar=builder.grammar,
    )


def _context_of(builder: PassBuilder, rows: int) -> int:
    """How many slots come before the first row, after a check of pages and lengths."""
    page_size = builder.facts.page_size
    if not builder.pages:
        raise GuestFault(f"{EXECUTE}: the pass has no KV pages: call kv-cache before each execute")
    each_once(EXECUTE, "kv-page-ptrs", builder.pages)
    if not 1 <= builder.last_page_length <= page_size:
        got = builder.last_page_length
        raise fault(EXECUTE, "last-kv-page-len", got, f"1 to {page_size}, the page size")
    slots = (len(builder.pages) - 1) * page_size + builder.last_page_length
    if slots < rows:
        raise GuestFault(
            f"{EXECUTE}: {len(builder.pages)} pages with last-kv-page-len "
            f"{builder.last_page_length} hold {slots} tokens, but the pass has {rows} inputs; "
            f"the lengths count the inputs of this pass too"
        )
    return slots - rows


def _check_outputs(builder: PassBuilder, rows: int) -> None:
    asked = [output.row for output in builder.outputs]
    if builder.embed_outputs:
        asked += [row for row, _ in builder.embed_outputs]
    if asked and max(asked) >= rows:
        allowed = f"0 to {rows - 1}, the inputs of this pass"
        raise fault(EXECUTE, "an index of an output", max(asked), allowed)


def _controlled_outputs(builder: PassBuilder, limits: Limits) -> tuple[OutputRow, ...]:
    if not (builder.logprobs or builder.adjustments or builder.written):
        return tuple(builder.outputs)
    changed = builder.adjustments.keys() | builder.written.keys()
    for row in changed - {output.row for output in builder.outputs}:
        raise fault(EXECUTE, "an adjusted row", row, "one of which something is asked")
    outputs = tuple(_controlled(output, builder) for output in builder.outputs)
    adjusted = sum(len(output.adjustments) // ADJUSTMENT.size for output in outputs)
    if adjusted > limits.pass_adjustments_max:
        allowed = f"at most {limits.pass_adjustments_max} (pass_adjustments_max)"
        raise fault(EXECUTE, "the number of adjustments of all outputs", adjusted, allowed)
    return outputs


def _controlled(output: OutputRow, builder: PassBuilder) -> OutputRow:
    draws = output.kind is not SamplerKind.DISTRIBUTION
    logprobs, records = builder.logprobs if draws else 0, builder.adjustments.get(output.row, b"")
    written = builder.written.get(output.row, b"")
    return attrs.evolve(output, logprobs=logprobs, adjustments=records, written=written)


def _seed_of(builder: PassBuilder) -> int | None:
    """Of row 0, so that each output draws what the guest's seed says of its position."""
    if builder.seed is None or not builder.outputs:
        return None
    starts = {builder.positions[output.row] - output.row for output in builder.outputs}
    if len(starts) > 1:
        raise GuestFault(
            f"{EXECUTE}: with a seed, the positions of all rows of which something is asked "
            "must count on by one from row to row"
        )
    return chosen_seed(builder.seed, starts.pop())


async def _intervals_of(
    mask: Sequence[Sequence[int]] | None, rows: int, context: int
) -> tuple[tuple[int, ...], ...] | None:
    if mask is None:
        return None
    if len(mask) != rows:
        raise fault(EXECUTE, "the number of rows of the mask", len(mask), f"{rows}, one an input")
    intervals: list[tuple[int, ...]] = []
    for row, runs in enumerate(mask):
        intervals.append(attended_intervals(runs, context + row + 1, row))
        if row % _ROWS_BETWEEN_CHECKPOINTS == _ROWS_BETWEEN_CHECKPOINTS - 1:
            await trio.lowlevel.checkpoint()  # long masks take milliseconds
    return None if is_causal(intervals, context) else tuple(intervals)
