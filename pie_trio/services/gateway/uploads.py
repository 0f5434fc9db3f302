"""Programs and blobs that arrive in chunks over one connection.

It owns what has arrived of unfinished transfers, bounded in number and size; it dies with the
connection. A transfer that breaks a rule is gone at once. Nothing here touches the disk.
"""

from __future__ import annotations

from collections.abc import Hashable

import attrs

from pie_trio.config import Limits
from pie_trio.errors import BadRequest
from pie_trio.services.chunks import Assembly
from pie_trio.services.client_messages import AddProgram, TransferFile


@attrs.define(eq=False)
class Uploads:
    """The unfinished transfers of one connection."""

    _limits: Limits
    _assemblies: dict[Hashable, Assembly] = attrs.field(factory=dict)

    def add_program(self, chunk: AddProgram) -> bytes | None:
        """The artifact after its last chunk. Raises `BadRequest`."""
        return self._add(("program", chunk.corr_id), chunk.program_hash, chunk)

    def add_file(self, chunk: TransferFile) -> bytes | None:
        """The blob after its last chunk. Raises `BadRequest`."""
        return self._add(("file", chunk.process_id, chunk.file_hash), chunk.file_hash, chunk)

    def _add(self, key: Hashable, content: str, chunk: AddProgram | TransferFile) -> bytes | None:
        if len(chunk.chunk_data) > self._limits.upload_chunk_bytes:
            self._assemblies.pop(key, None)
            raise BadRequest(f"a chunk is larger than {self._limits.upload_chunk_bytes} bytes")
        # Taken out and put back only after success: a transfer that broke a rule is gone.
        assembly = self._assemblies.pop(key, None) or self._begin(content)
        whole = assembly.add(chunk.chunk_index, chunk.total_chunks, chunk.chunk_data)
        if whole is None:
            self._assemblies[key] = assembly
        return whole

    def _begin(self, content: str) -> Assembly:
        if len(self._assemblies) >= self._limits.uploads_per_client:
            raise BadRequest(f"{self._limits.uploads_per_client} uploads are already under way")
        return Assembly(content, self._limits.upload_bytes)
