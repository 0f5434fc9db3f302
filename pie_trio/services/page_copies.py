"""Pages that are to be copied on the device, whole, before anything of the next batch is computed.

Pure. A copy pins both pages from its turn until the batch that makes it has settled, also when
whoever asked for it is dead. One whose owner dies before that batch leaves is never made.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from pie_trio.errors import GuestFault
from pie_trio.messages import CopyPage, ForwardPass, Owner, PageId
from pie_trio.services.batch_policy import Plan, written_slots
from pie_trio.services.page_pool import PagePool


@attrs.define(eq=False)
class PageCopies:
    """The copies of one worker generation, in the order in which they were asked for."""

    _pool: PagePool
    _waiting: list[CopyPage] = attrs.field(factory=list, init=False)
    _in_flight: list[CopyPage] = attrs.field(factory=list, init=False)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, copy: CopyPage) -> None:
        self._pool.pin((copy.source, copy.target))
        self._waiting.append(copy)

    def dispatch(self, plan: Plan) -> list[tuple[PageId, PageId]]:
        """All that wait leave with the next batch, before the copies that its passes need."""
        self._in_flight, self._waiting = self._waiting, []
        pairs = [(copy.source, copy.target) for copy in self._in_flight]
        for chunk in plan.chunks:
            if chunk.first == 0:
                pairs += chunk.waiting.forward.copies
        return pairs

    def settle(self) -> None:
        self._in_flight = self._unpinned(self._in_flight)

    def drop_owner(self, owner: Owner) -> None:
        left = [copy for copy in self._waiting if copy.owner == owner]
        self._waiting = [copy for copy in self._waiting if copy.owner != owner]
        self._unpinned(left)

    def close(self) -> None:
        self._in_flight = self._unpinned(self._in_flight)
        self._waiting = self._unpinned(self._waiting)

    def _unpinned(self, copies: list[CopyPage]) -> list[CopyPage]:
        for copy in copies:
            self._pool.unpin((copy.source, copy.target))
        return []


def check_copy(
    copy: CopyPage, tokens: int, pool: PagePool, queue: int, unsettled: Iterable[ForwardPass]
) -> None:
    """Raises `GuestFault`: everything before it in its queue has settled, but not in others."""
    if pool.is_shared(copy.target):
        raise GuestFault("pages.copy: the target is exported or imported, and so read-only")
    if pool.marks.gaps((copy.source,), tokens, tokens):
        raise GuestFault(
            f"pages.copy: one of the first {tokens} slots of the source was never written"
        )
    for forward in unsettled:
        if forward.queue == queue:
            continue
        written = written_slots(forward).get(copy.source)
        is_written = written is not None and written.start < tokens
        copied_into = {target for _, target in forward.copies}
        if is_written or copy.source in copied_into or copy.target in forward.pages:
            raise GuestFault(
                "pages.copy: a pass of another queue still writes these slots;"
                " synchronize that queue first"
            )
