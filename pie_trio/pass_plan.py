"""A draft of a pass with its handles resolved: what it reads, writes and must not write.

Nothing has changed yet when a draft is refused: handles that are not the guest's, a page that
stands twice in a pass that writes it, an embedding that others can see, a slot that nobody has
written since its page was granted: what is in there belonged to somebody else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import attrs

from pie_trio.actors.resource_manager import Lease
from pie_trio.config import Limits
from pie_trio.decode import Decode, DecodeDraft
from pie_trio.errors import GuestFault
from pie_trio.messages import PageId, PassDraft, ResourceKind
from pie_trio.services.slot_marks import SlotMarks, first_read, written_ranges


@attrs.define(eq=False)
class PassPlan:
    """A draft whose handles are resolved."""

    draft: PassDraft
    page_size: int
    tokens: tuple[int, ...]
    pages: list[PageId]
    embed_outputs: tuple[tuple[int, int], ...]
    embed_pins: tuple[PageId, ...]
    written_ranges: dict[int, range]  # the slots that it writes, by the index of the page
    sequence: DecodeDraft | None = None
    reserve: tuple[PageId, ...] = ()
    sources: list[PageId] = attrs.field(factory=list)

    @classmethod
    def check(
        cls, draft: PassDraft, lease: Lease, page_size: int, sequence: DecodeDraft | None = None
    ) -> PassPlan:
        """Raises `GuestFault` for a handle that is not the guest's, before anything changed."""
        pages = list(lease.tenancies[ResourceKind.KV_PAGE].resolve(draft.pages, "KV page"))
        tokens, read = _with_slots(draft.tokens, lease)
        outputs, written = _embed_outputs(draft.embed_outputs, lease)
        ranges = written_ranges(len(pages), page_size, draft.last_page_length, len(tokens))
        plan = cls(draft, page_size, tokens, pages, outputs, (*read, *written), ranges, sequence)
        if sequence is not None:
            plan.reserve = lease.tenancies[ResourceKind.KV_PAGE].resolve(
                sequence.reserve, "KV page"
            )
            plan._check_reserved_once()
        plan._check_written_once()
        plan._check_context_written(lease.pools[ResourceKind.KV_PAGE].marks)
        return plan

    def decode(
        self,
        seed_of: Callable[[int], int],
        interrupt: Callable[[], None],
        limits: Limits,
        now: float,
    ) -> Decode | None:
        """The sequence of which this is the first pass."""
        if self.sequence is None:
            return None
        return Decode(
            rules=self.sequence.rules,
            pages=(*self.pages, *self.reserve),
            seed_of=seed_of,
            wake=self.sequence.wake,
            interrupt=interrupt,
            limits=limits,
            first_slots=(len(self.pages) - 1) * self.page_size + self.draft.last_page_length,
            adjusting=self.sequence.adjusting,
            goes_on=self.sequence.goes_on,
            woken_at=now,
        )

    def mark_written(self, lease: Lease) -> None:
        """From now on later passes may count on what this one writes."""
        marks = lease.pools[ResourceKind.KV_PAGE].marks
        for index, slots in self.written_ranges.items():
            marks.set(self.pages[index], slots)
        for _, slot in self.embed_outputs:
            lease.pools[ResourceKind.EMBEDDING].marks.set(PageId(slot), range(1))

    def _check_context_written(self, marks: SlotMarks) -> None:
        total = (len(self.pages) - 1) * self.page_size + self.draft.last_page_length
        gaps = marks.gaps(self.pages, self.page_size, total - len(self.tokens))
        if not gaps:
            return
        for row in self.draft.mask or ((0, total),):
            slot = first_read(gaps, row)
            if slot is not None:
                page = self.draft.pages[slot // self.page_size]
                raise GuestFault(
                    f"slot {slot % self.page_size} of KV page {page} is read and was never written;"
                    " write it first, or mask it"
                )

    def _check_reserved_once(self) -> None:
        if len({*self.pages, *self.reserve}) < len({*self.pages}) + len(self.reserve):
            raise GuestFault("a page to grow into stands twice in this sequence")

    def _check_written_once(self) -> None:
        if len(set(self.pages)) == len(self.pages):
            return
        times = Counter(self.pages)
        for index in self.written_ranges:
            if times[self.pages[index]] > 1:
                raise GuestFault(
                    f"KV page {self.draft.pages[index]} stands twice in this pass, which writes it"
                )


def forget_slots(slots: range, pages: Sequence[PageId], page_size: int, lease: Lease) -> None:
    """Of a sequence over these pages; those that its owner has given back are left alone."""
    if not slots:
        return
    held = lease.tenancies[ResourceKind.KV_PAGE].held
    count = -(-slots.stop // page_size)
    last = slots.stop - (count - 1) * page_size
    for index, part in written_ranges(count, page_size, last, len(slots)).items():
        if held.get(pages[index]):
            lease.pools[ResourceKind.KV_PAGE].marks.unset(pages[index], part)


def _with_slots(
    tokens: tuple[int, ...], lease: Lease
) -> tuple[tuple[int, ...], tuple[PageId, ...]]:
    """Rows that read embeddings, with the slot in place of the handle; and those slots."""
    if min(tokens) >= 0:
        return tokens, ()
    handles = [-1 - token for token in tokens if token < 0]
    slots = lease.tenancies[ResourceKind.EMBEDDING].resolve(handles, "embedding")
    marks = lease.pools[ResourceKind.EMBEDDING].marks
    for slot, handle in zip(slots, handles, strict=True):
        if marks.gaps((slot,), 1, 1):
            raise GuestFault(f"embedding {handle} is read and was never written")
    remaining = iter(slots)
    return tuple(-1 - next(remaining) if token < 0 else token for token in tokens), slots


def _embed_outputs(
    wanted: tuple[tuple[int, int], ...], lease: Lease
) -> tuple[tuple[tuple[int, int], ...], tuple[PageId, ...]]:
    if not wanted:
        return (), ()
    tenancy = lease.tenancies[ResourceKind.EMBEDDING]
    slots = tenancy.resolve([handle for _, handle in wanted], "embedding")
    pool = lease.pools[ResourceKind.EMBEDDING]
    for slot, (_, handle) in zip(slots, wanted, strict=True):
        if pool.is_shared(slot):
            raise GuestFault(f"embedding {handle} is exported or imported, and so read-only")
    rows = (row for row, _ in wanted)
    return tuple(zip(rows, slots, strict=True)), slots
