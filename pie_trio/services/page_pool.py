"""Who holds which page: counts, pins, exports. Plain, synchronous, of one worker generation.

Every page is in exactly one of four states, and `books()` proves it:

    free      nobody holds it and no batch names it
    owned     one or more instances hold it, no export does
    exported  an export holds it (instances may, too)
    pinned    no holder is left, but a batch in flight still names it

A page with more than one holder is read-only. `bury` gives back all that an instance held in one
step; what a batch in flight still pins follows when that batch settles. A refused operation has
changed nothing.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import attrs

from pie_trio.errors import GuestFault, TooMany
from pie_trio.messages import Owner, PageHandle, PageId
from pie_trio.services.slot_marks import SlotMarks


@attrs.frozen
class Books:
    """The state of a pool at one moment; all five numbers count pages."""

    capacity: int
    free: int
    owned: int
    exported: int
    pinned: int

    @property
    def balanced(self) -> bool:
        return self.free + self.owned + self.exported + self.pinned == self.capacity


@attrs.define(eq=False)
class Tenancy:
    """An instance's record in the pool: its handles, which are never given out twice."""

    owner: Owner
    pages: dict[PageHandle, PageId] = attrs.field(factory=dict)
    held: Counter[PageId] = attrs.field(factory=Counter)  # handles and releases to come, a page
    leaving: int = 0  # releases to come: their turn in a queue has not
    next_handle: int = 0
    is_buried: bool = False

    def resolve(self, handles: Sequence[int], what: str) -> tuple[PageId, ...]:
        """The pages behind handles. Raises `GuestFault` for a handle that is not this guest's."""
        numbers = cast("Sequence[PageHandle]", handles)
        try:
            return (*map(self.pages.__getitem__, numbers),)
        except KeyError as missing:
            handle = missing.args[0]
            raise GuestFault(f"{what} {handle} is not yours: never allocated, or freed") from None


@attrs.define(eq=False)
class Export:
    """Pages under a name. Hidden until its turn in the exporter's queue."""

    tenant: str
    name: str
    pages: tuple[PageId, ...]
    exporter: Owner
    is_visible: bool = False


Holder = Tenancy | Export


class PagePool:
    """The pages of one kind (KV pages or embeddings) of one worker generation."""

    def __init__(self, capacity: int, what: str, exports_max: int) -> None:
        self.capacity = capacity
        self.what = what  # "KV page" or "embedding": for error texts
        self.on_pages_back: Callable[[], None] = lambda: None
        self.marks = SlotMarks()
        self._exports_max = exports_max
        self._free = [PageId(number) for number in reversed(range(capacity))]
        self._holders: dict[PageId, set[Holder]] = {}
        self._pins: dict[PageId, int] = {}
        self._limbo: set[PageId] = set()  # pinned only
        self._tenancies: dict[int, Tenancy] = {}
        self._exports: OrderedDict[tuple[str, str], Export] = OrderedDict()  # oldest use first

    # --- questions

    @property
    def free_count(self) -> int:
        return len(self._free)

    @property
    def limbo_count(self) -> int:
        return len(self._limbo)

    def has_room(self, count: int) -> bool:
        return count <= len(self._free)

    def is_shared(self, page: PageId) -> bool:
        """Whether more than one handle or export stands for it."""
        holders = self._holders[page]
        first = next(iter(holders))
        return len(holders) > 1 or (isinstance(first, Tenancy) and first.held[page] > 1)

    def tenancies(self) -> list[Tenancy]:
        return list(self._tenancies.values())

    def exports(self, tenant: str) -> list[tuple[str, int]]:
        """Names and sizes of the visible exports of a tenant, by name."""
        return sorted(
            (export.name, len(export.pages))
            for export in self._exports.values()
            if export.tenant == tenant and export.is_visible
        )

    def books(self) -> Books:
        exported = sum(
            any(isinstance(holder, Export) for holder in holders)
            for holders in self._holders.values()
        )
        owned = len(self._holders) - exported
        return Books(self.capacity, len(self._free), owned, exported, len(self._limbo))

    # --- an instance's life

    def open_tenancy(self, owner: Owner) -> Tenancy:
        assert owner.number not in self._tenancies, "an instance moves in only once"
        tenancy = self._tenancies[owner.number] = Tenancy(owner)
        return tenancy

    def bury(self, tenancy: Tenancy) -> None:
        """Gives back everything at once, unannounced; afterwards the tenancy is a tombstone."""
        if tenancy.is_buried:
            return
        tenancy.is_buried = True
        del self._tenancies[tenancy.owner.number]
        for export in [e for e in self._exports.values() if e.exporter == tenancy.owner]:
            if not export.is_visible:
                self._drop_export(export)
        for page in list(tenancy.held):
            self._let_go(page, tenancy)
        tenancy.held.clear()
        tenancy.pages.clear()

    # --- pages

    def grant(self, tenancy: Tenancy, count: int) -> list[int]:
        """Handles of fresh pages; the caller has asked `has_room`."""
        assert not tenancy.is_buried, "nothing is granted to the dead"
        assert self.has_room(count), "a grant is made only when there is room"
        pages = [self._free.pop() for _ in range(count)]
        for page in pages:
            self._holders[page] = set()
            self.marks.clear(page)
        return [self._hand_out(tenancy, page) for page in pages]

    def give_up(self, tenancy: Tenancy, handles: Sequence[int]) -> tuple[PageId, ...]:
        """Makes handles void at once; `take_back` returns their pages later, in queue order."""
        if len(set(handles)) != len(handles):
            raise GuestFault(f"a {self.what} is named twice in one call")
        pages = tenancy.resolve(handles, self.what)
        for handle in handles:
            del tenancy.pages[PageHandle(handle)]
        tenancy.leaving += len(pages)
        return pages

    def take_back(self, tenancy: Tenancy, pages: Iterable[PageId]) -> None:
        """The turn of a deallocation has come."""
        if tenancy.is_buried:
            return
        for page in pages:
            tenancy.leaving -= 1
            tenancy.held[page] -= 1
            if not tenancy.held[page]:
                del tenancy.held[page]
                self._let_go(page, tenancy)
        self.on_pages_back()

    def replace(self, tenancy: Tenancy, handle: int, fresh: int) -> None:
        """Copy on write: `handle` now names the page of `fresh`, and `fresh` is void."""
        old = tenancy.pages[PageHandle(handle)]
        tenancy.pages[PageHandle(handle)] = tenancy.pages.pop(PageHandle(fresh))
        self.marks.copy(old, tenancy.pages[PageHandle(handle)])
        tenancy.leaving += 1
        self.take_back(tenancy, (old,))

    # --- pins: a pass that waits or runs names these pages

    def pin(self, pages: Iterable[PageId]) -> None:
        pins, holders = self._pins, self._holders
        for page in pages:
            assert page in holders or page in self._limbo, "only a page in use is pinned"
            pins[page] = pins.get(page, 0) + 1

    def unpin(self, pages: Iterable[PageId]) -> None:
        came_back = False
        pins = self._pins
        for page in pages:
            left = pins.pop(page, 0) - 1
            assert left >= 0, "a page is unpinned once for each pin"
            if left:
                pins[page] = left
            elif page in self._limbo:
                self._limbo.discard(page)
                self._free.append(page)
                came_back = True
        if came_back:
            self.on_pages_back()

    @contextmanager
    def pinned(self, pages: Sequence[PageId]) -> Iterator[None]:
        """While a pass over these pages is being made."""
        self.pin(pages)
        try:
            yield
        finally:
            self.unpin(pages)

    # --- exports

    def export(self, tenancy: Tenancy, handles: Sequence[int], name: str) -> Export:
        """Puts pages under a name, hidden until `publish`; from now on they are read-only."""
        key = (tenancy.owner.tenant, name)
        if len(set(handles)) != len(handles):
            raise GuestFault(f"export {name!r}: a {self.what} is named twice")
        pages = tenancy.resolve(handles, self.what)
        if key in self._exports:
            raise GuestFault(f"an export named {name!r} exists already; release it first")
        if len(self._exports) >= self._exports_max:
            raise TooMany(f"exports_max: {self._exports_max} exports exist already")
        export = Export(tenancy.owner.tenant, name, pages, tenancy.owner)
        self._exports[key] = export
        for page in pages:
            self._holders[page].add(export)
        return export

    def publish(self, export: Export) -> None:
        export.is_visible = True

    def find_export(self, tenant: str, name: str) -> Export | None:
        export = self._exports.get((tenant, name))
        return export if export is not None and export.is_visible else None

    def import_export(self, tenancy: Tenancy, export: Export) -> list[int]:
        """New handles on the exported pages, which stay read-only while shared."""
        assert not tenancy.is_buried, "nothing is granted to the dead"
        self._exports.move_to_end((export.tenant, export.name))
        return [self._hand_out(tenancy, page) for page in export.pages]

    def release(self, export: Export) -> None:
        """Forgets a name. Importers keep their pages."""
        self._drop_export(export)
        self.on_pages_back()

    def drop_unused_export(self) -> Export | None:
        """Drops the least recently used export that nobody else holds; None if there is none."""
        for export in self._exports.values():
            if export.is_visible and all(self._holders[p] == {export} for p in export.pages):
                self._drop_export(export)
                return export
        return None

    def all_exports(self) -> list[Export]:
        return list(self._exports.values())

    # --- how a page changes hands

    def _hand_out(self, tenancy: Tenancy, page: PageId) -> int:
        handle = PageHandle(tenancy.next_handle)
        tenancy.next_handle += 1
        tenancy.pages[handle] = page
        tenancy.held[page] += 1
        self._holders[page].add(tenancy)
        return handle

    def _drop_export(self, export: Export) -> None:
        del self._exports[export.tenant, export.name]
        for page in set(export.pages):
            self._let_go(page, export)

    def _let_go(self, page: PageId, holder: Holder) -> None:
        holders = self._holders[page]
        holders.discard(holder)
        if holders:
            return
        del self._holders[page]
        if page in self._pins:
            self._limbo.add(page)
        else:
            self._free.append(page)
