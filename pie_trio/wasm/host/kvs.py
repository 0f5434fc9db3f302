"""`inferlet:core/kvs`: text that outlives the instance, shared within its tenant.

Owns nothing; the store is a service that is handed in. A guest that dies leaves what it wrote.
It must never let a guest name a tenant: that is its owner's.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from pie_trio.wasm.host.state import InstanceHost

if TYPE_CHECKING:
    from pie_trio.wasm.linker import HostFunction


def store_get(host: InstanceHost, key: str) -> str | None:
    return host.kvs.get(host.owner.tenant, key)


async def store_set(host: InstanceHost, key: str, value: str) -> None:
    host.kvs.set(host.owner.tenant, key, value)


async def store_delete(host: InstanceHost, key: str) -> None:
    """Deleting what is not there is no error."""
    host.kvs.delete(host.owner.tenant, key)


def store_exists(host: InstanceHost, key: str) -> bool:
    return host.kvs.exists(host.owner.tenant, key)


async def store_list_keys(host: InstanceHost) -> list[str]:
    return host.kvs.keys(host.owner.tenant)


KVS: Mapping[str, HostFunction] = MappingProxyType(
    {
        "store-get": store_get,
        "store-set": store_set,
        "store-delete": store_delete,
        "store-exists": store_exists,
        "store-list-keys": store_list_keys,
    }
)
