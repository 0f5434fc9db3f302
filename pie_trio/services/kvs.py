"""The key-value store of `inferlet:core/kvs`: text by key, one namespace a tenant.

Owns what inferlets leave for each other; an instance that dies takes nothing with it. Bounded a
tenant by keys and by bytes: a write that does not fit is refused and changes nothing.
It must never let one tenant see, count or crowd out the keys of another.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from pie_trio.config import Limits
from pie_trio.errors import TooMany


@attrs.define(eq=False)
class _Namespace:
    """The keys of one tenant. Invariant: `size` is the bytes of all keys and values."""

    values: dict[str, str] = attrs.field(factory=dict)
    size: int = 0

    def cost(self, key: str) -> int:
        return _bytes_of(key, self.values[key]) if key in self.values else 0


@attrs.define(eq=False)
class KeyValueStore:
    """Text by key, apart for each tenant."""

    _limits: Limits
    _hit: Callable[[str], None] = lambda _name: None  # fault points: see `ports`
    _namespaces: dict[str, _Namespace] = attrs.field(factory=dict, init=False)

    def get(self, tenant: str, key: str) -> str | None:
        return self._of(tenant).values.get(key)

    def exists(self, tenant: str, key: str) -> bool:
        return key in self._of(tenant).values

    def keys(self, tenant: str) -> list[str]:
        """All keys in the order of their code points."""
        return sorted(self._of(tenant).values)

    def set(self, tenant: str, key: str, value: str) -> None:
        self._hit("kvs.set")
        namespace = self._of(tenant)
        size = namespace.size - namespace.cost(key) + _bytes_of(key, value)
        if size > self._limits.kvs_bytes_max:
            raise TooMany(
                f"store-set: {size} bytes with the key {key!r:.80}; "
                f"a tenant keeps at most {self._limits.kvs_bytes_max} (kvs_bytes_max)"
            )
        if key not in namespace.values and len(namespace.values) >= self._limits.kvs_keys_max:
            raise TooMany(
                f"store-set: no room for the key {key!r:.80}; "
                f"a tenant keeps at most {self._limits.kvs_keys_max} keys (kvs_keys_max)"
            )
        namespace.values[key] = value
        namespace.size = size
        self._namespaces[tenant] = namespace

    def delete(self, tenant: str, key: str) -> None:
        """A key that is not there is none afterwards either: no error."""
        namespace = self._of(tenant)
        namespace.size -= namespace.cost(key)
        namespace.values.pop(key, None)
        if not namespace.values:
            self._namespaces.pop(tenant, None)

    def _of(self, tenant: str) -> _Namespace:
        return self._namespaces.get(tenant) or _Namespace()


def _bytes_of(key: str, value: str) -> int:
    return len(key.encode()) + len(value.encode())
