"""The books of pages: who holds what, and when it comes back."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pie_trio.errors import GuestFault, TooMany
from pie_trio.messages import InstanceId, Owner
from pie_trio.services.page_pool import Books, PagePool, Tenancy


def owner(number: int, tenant: str = "local") -> Owner:
    return Owner(number, InstanceId(f"instance-{number}"), tenant, "program@1.0.0")


def pool_with(*owners: int, capacity: int = 8) -> tuple[PagePool, list[Tenancy]]:
    pool = PagePool(capacity, "KV page", exports_max=4)
    return pool, [pool.open_tenancy(owner(number)) for number in owners]


def test_granted_pages_are_owned_and_distinct() -> None:
    pool, (a, b) = pool_with(1, 2)
    pages = {*a.resolve(pool.grant(a, 3), "page"), *b.resolve(pool.grant(b, 2), "page")}
    assert len(pages) == 5
    assert pool.books() == Books(8, free=3, owned=5, exported=0, pinned=0)


def test_a_handle_of_another_instance_is_refused() -> None:
    pool, (a, b) = pool_with(1, 2)
    pool.grant(b, 1)
    (handle,) = pool.grant(a, 1)
    with pytest.raises(GuestFault, match="not yours"):
        b.resolve([handle + 1], "KV page")


def test_a_freed_handle_is_never_given_out_again() -> None:
    pool, (a,) = pool_with(1)
    (first,) = pool.grant(a, 1)
    pool.take_back(a, pool.give_up(a, [first]))
    (second,) = pool.grant(a, 1)
    assert first != second
    with pytest.raises(GuestFault, match="freed"):
        a.resolve([first], "KV page")


def test_giving_up_one_page_twice_in_one_call_changes_nothing() -> None:
    pool, (a,) = pool_with(1)
    (handle,) = pool.grant(a, 1)
    with pytest.raises(GuestFault, match="twice"):
        pool.give_up(a, [handle, handle])
    assert pool.books().owned == 1
    assert a.resolve([handle], "KV page")


def test_pages_given_up_stay_owned_until_their_turn() -> None:
    pool, (a,) = pool_with(1)
    pages = pool.give_up(a, pool.grant(a, 2))
    assert pool.books().owned == 2
    pool.take_back(a, pages)
    assert pool.books().free == 8


def test_pages_of_the_dead_wait_for_the_batch_in_flight() -> None:
    pool, (a,) = pool_with(1)
    pages = a.resolve(pool.grant(a, 3), "KV page")
    pool.pin(pages[:2])
    pool.bury(a)
    assert pool.books() == Books(8, free=6, owned=0, exported=0, pinned=2)
    pool.unpin(pages[:2])
    assert pool.books().free == 8


def test_a_page_pinned_twice_needs_two_unpins() -> None:
    pool, (a,) = pool_with(1)
    pages = a.resolve(pool.grant(a, 1), "KV page")
    pool.pin(pages)
    pool.pin(pages)
    pool.bury(a)
    pool.unpin(pages)
    assert pool.books().pinned == 1
    pool.unpin(pages)
    assert pool.books().pinned == 0


def test_an_export_survives_its_exporter_and_is_shared_by_importers() -> None:
    pool, (a, b) = pool_with(1, 2)
    handles = pool.grant(a, 2)
    pages = a.resolve(handles, "KV page")
    pool.publish(pool.export(a, handles, "prefix"))
    pool.bury(a)
    assert pool.books().exported == 2
    export = pool.find_export("local", "prefix")
    assert export is not None
    assert b.resolve(pool.import_export(b, export), "KV page") == pages
    assert pool.is_shared(pages[0])


def test_releasing_an_export_takes_nothing_from_under_an_importer() -> None:
    pool, (a, b) = pool_with(1, 2)
    handles = pool.grant(a, 2)
    export = pool.export(a, handles, "prefix")
    pool.publish(export)
    imported = pool.import_export(b, export)
    pool.bury(a)
    pool.release(export)
    assert pool.books() == Books(8, free=6, owned=2, exported=0, pinned=0)
    assert b.resolve(imported, "KV page")
    pool.bury(b)
    assert pool.books().free == 8


def test_an_export_is_invisible_until_its_turn_and_dies_with_an_exporter_before_it() -> None:
    pool, (a,) = pool_with(1)
    pool.export(a, pool.grant(a, 1), "early")
    assert pool.find_export("local", "early") is None
    pool.bury(a)
    assert pool.books().free == 8
    assert pool.all_exports() == []


def test_exported_pages_are_read_only_for_the_exporter_at_once() -> None:
    pool, (a,) = pool_with(1)
    handles = pool.grant(a, 1)
    (page,) = a.resolve(handles, "KV page")
    assert not pool.is_shared(page)
    pool.export(a, handles, "mine")
    assert pool.is_shared(page)


def test_an_export_of_another_tenant_is_not_found() -> None:
    pool = PagePool(8, "KV page", exports_max=4)
    a = pool.open_tenancy(owner(1, "one"))
    pool.publish(pool.export(a, pool.grant(a, 1), "secret"))
    assert pool.find_export("two", "secret") is None
    assert pool.exports("two") == []
    assert pool.exports("one") == [("secret", 1)]


def test_a_name_is_exported_once_and_exports_are_bounded() -> None:
    pool, (a,) = pool_with(1)
    handles = pool.grant(a, 1)
    pool.export(a, handles, "x0")
    with pytest.raises(GuestFault, match="exists already"):
        pool.export(a, handles, "x0")
    for number in range(1, 4):
        pool.export(a, handles, f"x{number}")
    with pytest.raises(TooMany, match="exports_max"):
        pool.export(a, handles, "x4")


def test_the_least_recently_used_export_that_nobody_holds_is_dropped_first() -> None:
    pool, (a, b) = pool_with(1, 2)
    exports = [pool.export(a, pool.grant(a, 1), name) for name in ("one", "two", "three")]
    for export in exports:
        pool.publish(export)
    pool.bury(a)
    pool.take_back(b, pool.give_up(b, pool.import_export(b, exports[0])))  # used, then let go
    pool.import_export(b, exports[1])  # still held
    dropped = [pool.drop_unused_export() for _ in range(3)]
    assert dropped == [exports[2], exports[0], None]


def test_an_export_whose_turn_has_not_come_is_not_dropped_for_room() -> None:
    pool, (a,) = pool_with(1)
    handles = pool.grant(a, 1)
    export = pool.export(a, handles, "early")
    pool.take_back(a, pool.give_up(a, handles))
    assert pool.drop_unused_export() is None
    pool.publish(export)
    assert pool.drop_unused_export() is export


def test_copy_on_write_moves_the_handle_and_lets_the_shared_page_go() -> None:
    pool, (a, b) = pool_with(1, 2)
    export = pool.export(a, pool.grant(a, 1), "shared")
    pool.publish(export)
    (imported,) = pool.import_export(b, export)
    (fresh,) = pool.grant(b, 1)
    (target,) = b.resolve([fresh], "KV page")
    pool.replace(b, imported, fresh)
    assert b.resolve([imported], "KV page") == (target,)
    with pytest.raises(GuestFault, match="not yours"):
        b.resolve([fresh], "KV page")


class PoolAgainstModel(RuleBasedStateMachine):
    """Random lives of instances against a dictionary that counts holders."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = PagePool(12, "KV page", exports_max=100)
        self.tenancies: list[Tenancy] = []
        self.pins: list[tuple[int, ...]] = []
        self.launched = 0
        self.exported = 0

    @rule()
    def launch(self) -> None:
        self.launched += 1
        self.tenancies.append(self.pool.open_tenancy(owner(self.launched)))

    @precondition(lambda self: self.tenancies)
    @rule(data=st.data(), count=st.integers(0, 4))
    def allocate(self, data: st.DataObject, count: int) -> None:
        tenancy = data.draw(st.sampled_from(self.tenancies))
        before = self.pool.free_count
        if self.pool.has_room(count):
            assert len(self.pool.grant(tenancy, count)) == count
            assert self.pool.free_count == before - count

    @precondition(lambda self: any(t.pages for t in self.tenancies))
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        tenancy = data.draw(st.sampled_from([t for t in self.tenancies if t.pages]))
        handle = data.draw(st.sampled_from(sorted(tenancy.pages)))
        self.pool.take_back(tenancy, self.pool.give_up(tenancy, [handle]))

    @precondition(lambda self: any(t.pages for t in self.tenancies))
    @rule(data=st.data())
    def pin(self, data: st.DataObject) -> None:
        tenancy = data.draw(st.sampled_from([t for t in self.tenancies if t.pages]))
        pages = tuple(tenancy.pages.values())
        self.pool.pin(pages)
        self.pins.append(pages)

    @precondition(lambda self: self.pins)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.pins) - 1))
        self.pool.unpin(self.pins.pop(index))  # type: ignore[arg-type]

    @precondition(lambda self: any(t.pages for t in self.tenancies))
    @rule(data=st.data())
    def export(self, data: st.DataObject) -> None:
        tenancy = data.draw(st.sampled_from([t for t in self.tenancies if t.pages]))
        self.exported += 1
        export = self.pool.export(tenancy, sorted(tenancy.pages), f"export-{self.exported}")
        if data.draw(st.booleans()):
            self.pool.publish(export)

    @precondition(lambda self: self.tenancies and self.pool.all_exports())
    @rule(data=st.data())
    def share_or_release(self, data: st.DataObject) -> None:
        visible = [e for e in self.pool.all_exports() if e.is_visible]
        if not visible:
            return
        export = data.draw(st.sampled_from(visible))
        if data.draw(st.booleans()):
            self.pool.import_export(data.draw(st.sampled_from(self.tenancies)), export)
        else:
            self.pool.release(export)

    @precondition(lambda self: self.tenancies)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        tenancy = data.draw(st.sampled_from(self.tenancies))
        self.tenancies.remove(tenancy)
        self.pool.bury(tenancy)
        assert not tenancy.pages

    @invariant()
    def books_balance_and_match_the_holders(self) -> None:
        books = self.pool.books()
        assert books.balanced
        held = {page for t in self.tenancies for page in t.pages.values()}
        exported = {page for e in self.pool.all_exports() for page in e.pages}
        pinned = {page for pages in self.pins for page in pages}
        assert books.exported == len(exported)
        assert books.owned == len(held - exported)
        assert books.pinned == len(pinned - held - exported)


PoolAgainstModel.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None
)
TestPoolAgainstModel = PoolAgainstModel.TestCase
