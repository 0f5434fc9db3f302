"""Which waiting passes make the next batch: pure, from (waiting, limits, now) to a plan.

The default trigger is work-conserving: whatever waits when the worker is idle is the next batch.
The token budget is kept exactly; a pass that does not fit is cut into chunks. Nothing is lost,
doubled or reordered within a queue: a pass leaves only behind all that it depends on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from gpu_worker import wire
from pie_trio.config import Batching, BatchTrigger, Limits
from pie_trio.messages import ForwardPass, PageId
from pie_trio.services.slot_marks import written_ranges

SHORT_SHARE = 8  # a pass of at most one in so many rows of the budget is short: a decode
LONG_SHARE = 4  # one in so many rows of the budget is kept for longer ones


@attrs.define(eq=False)
class WaitingPass:
    """A pass in the model's inbox, and how far it has been executed."""

    forward: ForwardPass
    ordinal: int  # of its submission to this model
    after: tuple[WaitingPass, ...]  # must leave before, or earlier in the same batch
    rows_done: int = 0
    rows: int = attrs.field(init=False)
    values: int = attrs.field(init=False)
    written: dict[PageId, range] = attrs.field(init=False)
    request: wire.Request | None = None  # all its rows, encoded, unless it has been cut

    def __attrs_post_init__(self) -> None:
        self.rows = len(self.forward.tokens)
        self.values = values_of(self.forward)
        self.written = written_slots(self.forward)

    @property
    def rows_left(self) -> int:
        return self.rows - self.rows_done

    @property
    def has_left(self) -> bool:
        return self.rows_done == self.rows


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
    left = list(order)
    chosen = _Choice(passes_max, budget, values_max, _Shares.of(left, budget))
    while left and chosen.has_room:
        skipped = [item for item in left if not chosen.take(item)]
        if len(skipped) == len(left):
            break
        left = skipped
    return tuple(chosen.chunks.values())


@attrs.define
class _Shares:
    """How many rows of the batch short and long passes may take.

    A long pass leaves room for all short ones that wait, so that none waits for it longer than
    the step in which it arrives; and many short ones leave a share to the long ones.
    """

    short_rows: int  # a pass with more rows left than so many is long
    short: int
    long: int

    @classmethod
    def of(cls, waiting: Sequence[WaitingPass], budget: int) -> _Shares:
        bound = budget // SHORT_SHARE
        sizes = [item.rows_left for item in waiting]
        short = sum(size for size in sizes if size <= bound)
        kept = min(sum(sizes) - short, budget // LONG_SHARE)
        return cls(bound, budget - kept, budget - min(short, budget - kept))

    def rows_for(self, rows_left: int) -> int:
        """None of a short pass is left for another batch unless there is no room at all."""
        return self.short if rows_left <= self.short_rows else self.long

    def take(self, rows_left: int, rows: int) -> None:
        if rows_left <= self.short_rows:
            self.short -= rows
        else:
            self.long -= rows


@attrs.define
class _Choice:
    """The batch so far."""

    _passes_max: int
    _budget: int
    _values_max: int
    _shares: _Shares
    chunks: dict[int, Chunk] = attrs.field(factory=dict, init=False)
    _frontier: _Frontier = attrs.field(factory=lambda: _Frontier(), init=False)

    @property
    def has_room(self) -> bool:
        return self._budget > 0 and len(self.chunks) < self._passes_max

    def take(self, item: WaitingPass) -> bool:
        """Whether it joins, whole or in part."""
        rows_left = item.rows_left
        rows = min(rows_left, self._budget, self._shares.rows_for(rows_left))
        if rows <= 0 or not self.has_room:
            return False
        is_too_much = bool(self.chunks) and item.values > self._values_max
        if is_too_much or not _is_free(item, self.chunks) or not self._frontier.admits(item):
            return False
        self.chunks[item.ordinal] = Chunk(item, item.rows_done, item.rows_done + rows)
        self._frontier.add(item)
        self._shares.take(rows_left, rows)
        self._budget -= rows
        self._values_max -= item.values
        return True


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
    earlier pass of the same batch reads or writes waits for the next one. Nobody but its owner
    names a page that is written. Copies need no rule: their sources are shared, hence never
    written, and their targets are fresh.
    """

    def __init__(self) -> None:
        self._chosen: dict[int, list[ForwardPass]] = {}  # by owner
        self._visible: dict[PageId, int] = {}  # page -> rows of it that they read, by and by
        self._embeddings: set[int] = set()  # slots that the batch writes

    def admits(self, item: WaitingPass) -> bool:
        forward = item.forward
        if self._embeddings and any(-1 - token in self._embeddings for token in forward.tokens):
            return False
        chosen = self._chosen.get(forward.owner.number)
        if chosen is None:
            return True
        while chosen:
            self._see(chosen.pop())
        return all(
            self._visible.get(page, 0) <= slots.start for page, slots in item.written.items()
        )

    def add(self, item: WaitingPass) -> None:
        self._chosen.setdefault(item.forward.owner.number, []).append(item.forward)
        self._embeddings.update(slot for _, slot in item.forward.embed_outputs)

    def _see(self, forward: ForwardPass) -> None:
        last = len(forward.pages) - 1
        for index, page in enumerate(forward.pages):
            rows = forward.last_page_length if index == last else forward.page_size
            self._visible[page] = max(self._visible.get(page, 0), rows)


def values_of(forward: ForwardPass) -> int:
    """How many numbers travel for it beside its rows, in the worst case, both ways."""
    lists = sum([output.numbers for output in forward.outputs])
    masks = 0 if forward.mask is None else sum(map(len, forward.mask))
    return len(forward.pages) + masks + len(forward.outputs) + lists


def written_slots(forward: ForwardPass) -> dict[PageId, range]:
    """The pages that a pass writes, each with the slots that it writes there."""
    end = forward.last_page_length
    if len(forward.tokens) == 1:  # a step of decoding
        return {forward.pages[-1]: range(end - 1, end)}
    ranges = written_ranges(len(forward.pages), forward.page_size, end, len(forward.tokens))
    return {forward.pages[index]: slots for index, slots in ranges.items()}
