"""What passes on their way hold of pages: pins on all that they name, and the sources of copies.

Pure. A pass pins from its submission until it has settled, also when its owner is dead. A page
that a copy is still to be made of is read-only for whoever holds it meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

import attrs

from pie_trio.messages import ForwardPass, PageId, ResourceKind
from pie_trio.services.batch_policy import WaitingPass, written_slots
from pie_trio.services.page_pool import PagePool
from pie_trio.services.slot_marks import written_ranges


@attrs.define(eq=False)
class PassPins:
    """The pins of one worker generation."""

    _pools: dict[ResourceKind, PagePool]
    _sources: Counter[PageId] = attrs.field(factory=Counter, init=False)

    def pin(self, forward: ForwardPass) -> None:
        self._pools[ResourceKind.KV_PAGE].pin(forward.pins)
        if forward.embed_pins:
            self._pools[ResourceKind.EMBEDDING].pin(forward.embed_pins)
        if forward.copies:
            self._sources.update(source for source, _ in forward.copies)

    def unpin(self, forward: ForwardPass) -> None:
        for source, _ in forward.copies:
            self._sources[source] -= 1
            if not self._sources[source]:
                del self._sources[source]
        self._pools[ResourceKind.KV_PAGE].unpin(forward.pins)
        if forward.embed_pins:
            self._pools[ResourceKind.EMBEDDING].unpin(forward.embed_pins)

    def is_source(self, page: PageId) -> bool:
        """Whether a copy of this page is still to be made."""
        return page in self._sources

    def mark(self, waiting: WaitingPass, steps: int) -> None:
        """What so many steps of a sequence have written may be read from now on."""
        marks = self._pools[ResourceKind.KV_PAGE].marks
        for page, slots in waiting.written.items():
            marks.set(page, slots)
        forward = waiting.forward
        if steps > 1 and forward.decode is not None:
            pages, last = forward.decode.place(forward, steps - 1)
            ranges = written_ranges(pages, forward.page_size, last, steps - 1)
            for index, slots in ranges.items():
                marks.set(forward.decode.pages[index], slots)

    def unmark(self, forward: ForwardPass) -> None:
        """It failed: what it was to write is not there."""
        for page, slots in written_slots(forward).items():
            self._pools[ResourceKind.KV_PAGE].marks.unset(page, slots)
        for slot in written(forward, ResourceKind.EMBEDDING):
            self._pools[ResourceKind.EMBEDDING].marks.unset(PageId(slot), range(1))


def written(forward: ForwardPass, kind: ResourceKind) -> Collection[int]:
    """The pages or slots of a kind that a pass writes, or the sequence of which it is a step."""
    if kind is ResourceKind.KV_PAGE:
        later = forward.decode.pages[len(forward.pages) :] if forward.decode else ()
        return {*written_slots(forward), *later}
    return {slot for _, slot in forward.embed_outputs}


def builds_on(later: ForwardPass, earlier: ForwardPass) -> bool:
    """Whether `later`, submitted after `earlier`, names what that one was to write."""
    pages = written(earlier, ResourceKind.KV_PAGE)
    slots = written(earlier, ResourceKind.EMBEDDING)
    sources = (source for source, _ in later.copies)
    return (
        any(page in pages for page in later.pages)
        or any(page in pages for page in sources)
        or any(token < 0 and -1 - token in slots for token in later.tokens)
    )


def writes_elsewhere(
    unsettled: Iterable[ForwardPass], queue: int, kind: ResourceKind, pages: set[PageId]
) -> bool:
    """Whether a pass of another queue is still to write one of these pages."""
    return any(
        forward.queue != queue and not pages.isdisjoint(written(forward, kind))
        for forward in unsettled
    )


def all_on(first: WaitingPass, tracked: Mapping[ForwardPass, WaitingPass]) -> list[WaitingPass]:
    """Those that build on it, or on one that does, in the order in which they were submitted."""
    found = [first]
    for waiting in found:
        found += [
            later
            for forward, later in tracked.items()
            if later not in found and builds_on(forward, waiting.forward)
        ]
    return found[1:]
