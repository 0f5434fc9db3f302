"""The key-value store and `inferlet:core/kvs`: what is shared, what is apart, what is refused."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pie_trio.config import Limits
from pie_trio.errors import TooMany
from pie_trio.services.kvs import KeyValueStore
from tests.support.handles import World, call

KEYS = st.sampled_from(["a", "bb", "ä", ""])
TENANTS = st.sampled_from(["local", "other"])


class StoreMachine(RuleBasedStateMachine):
    """The store against a dict that knows its own size."""

    def __init__(self) -> None:
        super().__init__()
        self.limits = Limits(kvs_keys_max=3, kvs_bytes_max=24)
        self.store = KeyValueStore(self.limits)
        self.model: dict[str, dict[str, str]] = {"local": {}, "other": {}}

    @rule(tenant=TENANTS, key=KEYS, value=st.text("xü", max_size=9))
    def store_set(self, tenant: str, key: str, value: str) -> None:
        wanted = {**self.model[tenant], key: value}
        size = sum(len((k + v).encode()) for k, v in wanted.items())
        if len(wanted) > self.limits.kvs_keys_max or size > self.limits.kvs_bytes_max:
            with pytest.raises(TooMany):
                self.store.set(tenant, key, value)
        else:
            self.store.set(tenant, key, value)
            self.model[tenant] = wanted

    @rule(tenant=TENANTS, key=KEYS)
    def store_delete(self, tenant: str, key: str) -> None:
        self.store.delete(tenant, key)
        self.model[tenant].pop(key, None)

    @invariant()
    def holds_what_the_dict_holds(self) -> None:
        for tenant, values in self.model.items():
            assert self.store.keys(tenant) == sorted(values)
            assert {key: self.store.get(tenant, key) for key in values} == values


TestStore = StoreMachine.TestCase


async def test_a_stored_value_is_read_by_another_instance_of_the_tenant() -> None:
    world = World()
    await call(world.host(), "core/kvs#store-set", "key", "value")
    assert call(world.host(), "core/kvs#store-get", "key") == "value"


async def test_a_key_that_was_never_stored_is_none() -> None:
    host = World().host()
    assert call(host, "core/kvs#store-get", "key") is None


async def test_a_deleted_key_is_gone_and_deleting_it_again_is_no_error() -> None:
    host = World().host()
    await call(host, "core/kvs#store-set", "key", "value")
    await call(host, "core/kvs#store-delete", "key")
    await call(host, "core/kvs#store-delete", "key")
    assert call(host, "core/kvs#store-get", "key") is None


async def test_a_key_exists_from_its_writing_on() -> None:
    host = World().host()
    assert call(host, "core/kvs#store-exists", "key") is False
    await call(host, "core/kvs#store-set", "key", "")
    assert call(host, "core/kvs#store-exists", "key") is True


async def test_keys_are_listed_in_order() -> None:
    host = World().host()
    for key in ("b", "a", "c"):
        await call(host, "core/kvs#store-set", key, "value")
    assert await call(host, "core/kvs#store-list-keys") == ["a", "b", "c"]


async def test_a_tenant_sees_no_key_of_another() -> None:
    world = World()
    await call(world.host("one"), "core/kvs#store-set", "key", "value")
    other = world.host("other")
    assert call(other, "core/kvs#store-get", "key") is None
    assert call(other, "core/kvs#store-exists", "key") is False
    assert await call(other, "core/kvs#store-list-keys") == []


async def test_a_write_that_does_not_fit_changes_nothing() -> None:
    host = World(Limits(kvs_bytes_max=8)).host()
    await call(host, "core/kvs#store-set", "key", "old")
    with pytest.raises(TooMany, match="kvs_bytes_max"):
        await call(host, "core/kvs#store-set", "key", "longer")
    assert call(host, "core/kvs#store-get", "key") == "old"
