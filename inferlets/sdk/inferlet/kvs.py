"""The engine's key-value store: text under text, shared by the programs of a tenant."""

from __future__ import annotations

from wit_world.imports import kvs

from inferlet.host import utf8


def get(key: str) -> str | None:
    return kvs.store_get(utf8(key))


def put(key: str, value: str) -> None:
    kvs.store_set(utf8(key), utf8(value))


def delete(key: str) -> None:
    kvs.store_delete(utf8(key))


def exists(key: str) -> bool:
    return kvs.store_exists(utf8(key))


def keys() -> list[str]:
    return list(kvs.store_list_keys())
