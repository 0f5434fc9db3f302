"""A draft of a pass with its handles resolved: what it reads, writes and must not write.

Nothing has changed yet when a draft is refused: handles that are not the guest's, a page that
stands twice in a pass that writes it, an embedding that others can see.
"""

from __future__ import annotations

import attrs

from pie_trio.actors.resource_manager import Lease
from pie_trio.errors import GuestFault
from pie_trio.messages import PageId, PassDraft, ResourceKind
from pie_trio.services.page_pool import Tenancy


@attrs.define(eq=False)
class PassPlan:
    """A draft whose handles are resolved."""

    draft: PassDraft
    page_size: int
    tokens: tuple[int, ...]
    pages: list[PageId]
    embed_outputs: tuple[tuple[int, int], ...]
    embed_pins: tuple[PageId, ...]
    sources: list[PageId] = attrs.field(factory=list)

    @classmethod
    def check(cls, draft: PassDraft, lease: Lease, page_size: int) -> PassPlan:
        """Raises `GuestFault` for a handle that is not the guest's, before anything changed."""
        pages = list(lease.tenancies[ResourceKind.KV_PAGE].resolve(draft.pages, "KV page"))
        tokens, read = _with_slots(draft.tokens, lease.tenancies[ResourceKind.EMBEDDING])
        outputs, written = _embed_outputs(draft.embed_outputs, lease)
        plan = cls(draft, page_size, tokens, pages, outputs, (*read, *written))
        plan._check_written_once()
        return plan

    def written_indices(self) -> range:
        total = (len(self.pages) - 1) * self.page_size + self.draft.last_page_length
        return range((total - len(self.tokens)) // self.page_size, len(self.pages))

    def _check_written_once(self) -> None:
        for index in self.written_indices():
            if self.pages.count(self.pages[index]) > 1:
                raise GuestFault(
                    f"KV page {self.draft.pages[index]} stands twice in this pass, which writes it"
                )


def _with_slots(
    tokens: tuple[int, ...], tenancy: Tenancy
) -> tuple[tuple[int, ...], tuple[PageId, ...]]:
    """Rows that read embeddings, with the slot in place of the handle; and those slots."""
    handles = [-1 - token for token in tokens if token < 0]
    if not handles:
        return tokens, ()
    slots = tenancy.resolve(handles, "embedding")
    remaining = iter(slots)
    return tuple(-1 - next(remaining) if token < 0 else token for token in tokens), slots


def _embed_outputs(
    wanted: tuple[tuple[int, int], ...], lease: Lease
) -> tuple[tuple[tuple[int, int], ...], tuple[PageId, ...]]:
    tenancy = lease.tenancies[ResourceKind.EMBEDDING]
    slots = tenancy.resolve([handle for _, handle in wanted], "embedding")
    pool = lease.pools[ResourceKind.EMBEDDING]
    for slot, (_, handle) in zip(slots, wanted, strict=True):
        if pool.is_shared(slot):
            raise GuestFault(f"embedding {handle} is exported or imported, and so read-only")
    rows = (row for row, _ in wanted)
    return tuple(zip(rows, slots, strict=True)), slots
