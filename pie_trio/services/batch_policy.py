"""Which waiting passes make the next batch: pure, from (waiting, limits, now) to a plan.

The default trigger is work-conserving: whatever waits when the worker is idle is the next batch.
The token budget is kept exactly; a pass that does not fit is cut into chunks. Nothing is lost,
doubled or reordered within a queue: a pass leaves only behind all that it depends on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from gpu_worker.wire import SamplerKind
from pie_trio.config import Batching, BatchTrigger, Limits
from pie_trio.messages import ForwardPass, PageId
from pie_trio.services.slot_marks import written_ranges


@attrs.define(eq=False)
class WaitingPass:
    """A pass in the model's inbox, and how far it has been executed."""

    forward: ForwardPass
    ordinal: int  # of its submission to this model
    after: tuple[WaitingPass, ...]  # must leave before, or earlier in the same batch
    rows_done: int = 0
    values: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.values = values_of(self.forward)

    @property
    def rows_left(self) -> int:
        return len(self.forward.tokens) - self.rows_done

    @property
    def has_left(self) -> bool:
        return self.rows_left == 0


@attrs.frozen
class Chunk:
    """Rows [first, end) of a pass, to be executed in one batch."""

    waiting: WaitingPass
    first: int
    end: int


@attrs.frozen
class Plan:
    """The next batch, or, when it is empty, when to ask again (None: when something arrives)."""

    chunks: tuple[Chunk, ...] = ()
    ask_again_at: float | None = None


def next_batch(
    waiting: Sequence[WaitingPass], batching: Batching, limits: Limits, budget: int, now: float
) -> Plan:
    """The plan at Trio time `now`; `budget` is the number of rows that the worker takes."""
    if not waiting:
        return Plan()
    oldest = min(item.forward.submitted_at for item in waiting)
    started = any(item.rows_done for item in waiting)
    match batching.trigger:
        case BatchTrigger.ADAPTIVE:
            passes_max = limits.batch_passes
        case BatchTrigger.EAGER:
            passes_max = 1
        case BatchTrigger.K_ONLY:
            if len(waiting) < batching.k and not started:
                return Plan()
            passes_max = batching.k
        case BatchTrigger.T_ONLY:
            if now < oldest + batching.t_seconds and not started:
                return Plan(ask_again_at=oldest + batching.t_seconds)
            passes_max = limits.batch_passes
        case BatchTrigger.K_OR_T:
            if len(waiting) < batching.k and now < oldest + batching.t_seconds and not started:
                return Plan(ask_again_at=oldest + batching.t_seconds)
            passes_max = limits.batch_passes
    order = _by_urgency(waiting, limits, now)
    return Plan(_choose(order, passes_max, budget, limits.batch_values))


def _by_urgency(
    waiting: Sequence[WaitingPass], limits: Limits, now: float
) -> Iterable[WaitingPass]:
    """Higher priority first, where waiting lifts a pass; then what no batch has served yet."""

    def urgency(item: WaitingPass) -> tuple[int, bool, int]:
        waited = max(0.0, now - item.forward.submitted_at)
        lift = int(waited / limits.priority_ageing_seconds)
        return (-(int(item.forward.priority) + lift), item.rows_done > 0, item.ordinal)

    return sorted(waiting, key=urgency)


def _choose(
    order: Iterable[WaitingPass], passes_max: int, budget: int, values_max: int
) -> tuple[Chunk, ...]:
    """Fills the budget in this order; what depends on a pass left behind stays behind, too.

    A pass may depend on one of lower urgency, so the order is gone through until nothing more
    joins. Within the batch, a pass stands behind all that it depends on.
    """
    chosen: dict[int, Chunk] = {}
    frontier = _Frontier()
    left = list(order)
    while left and budget > 0 and len(chosen) < passes_max:
        skipped: list[WaitingPass] = []
        for item in left:
            if budget == 0 or len(chosen) >= passes_max:
                break
            is_too_much = bool(chosen) and item.values > values_max
            if is_too_much or not _is_free(item, chosen) or not frontier.admits(item.forward):
                skipped.append(item)
                continue
            rows = min(item.rows_left, budget)
            chosen[item.ordinal] = Chunk(item, item.rows_done, item.rows_done + rows)
            frontier.add(item.forward)
            budget -= rows
            values_max -= item.values
        if len(skipped) == len(left):
            break
        left = skipped
    return tuple(chosen.values())


def _is_free(item: WaitingPass, chosen: dict[int, Chunk]) -> bool:
    for earlier in item.after:
        if earlier.has_left:
            continue
        chunk = chosen.get(earlier.ordinal)
        if chunk is None or chunk.end < len(earlier.forward.tokens):
            return False
    return True


class _Frontier:
    """Keeps apart what may not share a batch.

    All rows of a batch are written before any is read, so a pass that writes slots which an
    earlier pass of the same batch reads or writes waits for the next one. Copies need no rule:
    their sources are shared, hence never written, and their targets are fresh.
    """

    def __init__(self) -> None:
        self._visible: dict[PageId, int] = {}  # page -> rows of it that the batch reads
        self._embeddings: set[int] = set()  # slots that the batch writes

    def admits(self, forward: ForwardPass) -> bool:
        if any(token < 0 and -1 - token in self._embeddings for token in forward.tokens):
            return False
        return all(
            self._visible.get(page, 0) <= slots.start
            for page, slots in written_slots(forward).items()
        )

    def add(self, forward: ForwardPass) -> None:
        size = forward.page_size
        last = len(forward.pages) - 1
        for index, page in enumerate(forward.pages):
            rows = forward.last_page_length if index == last else size
            self._visible[page] = max(self._visible.get(page, 0), rows)
        self._embeddings.update(slot for _, slot in forward.embed_outputs)


def values_of(forward: ForwardPass) -> int:
    """How many numbers travel for it beside its rows, in the worst case, both ways."""
    heads = sum(
        2 * output.top_k for output in forward.outputs if output.kind is SamplerKind.DISTRIBUTION
    )
    return len(forward.pages) + sum(map(len, forward.mask or ())) + len(forward.outputs) + heads


def written_slots(forward: ForwardPass) -> dict[PageId, range]:
    """The pages that a pass writes, each with the slots that it writes there."""
    ranges = written_ranges(
        len(forward.pages), forward.page_size, forward.last_page_length, len(forward.tokens)
    )
    return {forward.pages[index]: slots for index, slots in ranges.items()}
