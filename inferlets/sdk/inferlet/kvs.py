"""The engine's key-value store: text under text, shared by the programs of a tenant."""

from __future__ import annotations

from wit_world.imports import kvs


def get(key: str) -> str | None:
    return kvs.store_get(key)


def put(key: str, value: str) -> None:
    kvs.store_set(key, value)


def delete(key: str) -> None:
    kvs.store_delete(key)


def exists(key: str) -> bool:
    return kvs.store_exists(key)


def keys() -> list[str]:
    return list(kvs.store_list_keys())
