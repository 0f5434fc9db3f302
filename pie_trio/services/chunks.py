"""Content that travels in chunks: cutting it up, and putting it together again.

Pure. An assembly owns the chunks of one transfer; its size is bounded by what it was told, never by
what the sender announces. Content is complete only when its hash is right.
"""

from __future__ import annotations

import attrs
from blake3 import blake3

from pie_trio.errors import BadRequest


def content_hash(data: bytes) -> str:
    return str(blake3(data).hexdigest())


def cut(data: bytes, size: int) -> list[bytes]:
    """At least one chunk: empty content is one empty chunk."""
    return [data[start : start + size] for start in range(0, len(data), size)] or [b""]


@attrs.define(eq=False)
class Assembly:
    """The chunks of one transfer, in order, without gaps."""

    content: str  # the BLAKE3 that the whole must have
    bytes_max: int
    total: int | None = None
    _next: int = 0
    _data: bytearray = attrs.field(factory=bytearray)
    # Fed chunk by chunk, so that the last one does not hold up everybody for a whole content.
    _hasher: blake3 = attrs.field(factory=blake3)

    def add(self, index: int, total: int, data: bytes) -> bytes | None:
        """The whole content after the last chunk, otherwise None. Raises `BadRequest`."""
        if self._next == 0 and index != 0:
            raise BadRequest("First chunk index must be 0")
        if self.total is not None and total != self.total:
            raise BadRequest(f"Chunk count mismatch: expected {self.total}, got {total}")
        if index != self._next or index >= total:
            raise BadRequest(f"Out-of-order chunk: expected {self._next} of {total}, got {index}")
        if len(self._data) + len(data) > self.bytes_max:
            raise BadRequest(f"the content exceeds the cap of {self.bytes_max} bytes")
        self.total = total
        self._next += 1
        self._data += data
        self._hasher.update(data)
        return self._complete() if self._next == total else None

    def _complete(self) -> bytes:
        found = self._hasher.hexdigest()
        if found != self.content.lower():
            raise BadRequest(f"hash mismatch: announced {self.content[:80]}, received {found}")
        return bytes(self._data)
