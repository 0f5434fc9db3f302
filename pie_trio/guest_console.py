"""What a guest writes to its standard output, as text for its client.

Bytes may be cut anywhere, so the end of a character that has not come yet is kept back. A sink
waits when the client does not read; it dies with its instance and loses only half a character.
"""

from __future__ import annotations

import codecs
from collections.abc import Awaitable, Callable

from pie_trio.messages import OutputEvent

Put = Callable[[OutputEvent], Awaitable[None]]


def text_sink(put: Put, kind: str) -> Callable[[bytes], Awaitable[None]]:
    """A sink of bytes that puts text events of a kind ("stdout" or "stderr")."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    async def write(data: bytes) -> None:
        text = decoder.decode(data)
        if text:
            await put(OutputEvent(kind, text))

    return write
