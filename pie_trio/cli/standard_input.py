"""Lines of stdin without a thread: they become messages to an instance.

It owns nothing; the descriptor stays as it is (blocking, shared with the shell). A wait for a line
that is cancelled has taken nothing. It never reads when nobody waits.
"""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import AsyncIterator

import trio

READ_BYTES = 65_536


async def read_lines() -> AsyncIterator[str]:
    """Until the end of stdin; a last line without its end counts too."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    while data := await _read():
        *lines, rest = (rest + decoder.decode(data)).split("\n")
        for line in lines:
            yield line
    if rest:
        yield rest


def is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


async def _read() -> bytes:
    if sys.stdin is None or sys.stdin.closed:
        return b""
    descriptor = sys.stdin.fileno()
    try:
        await trio.lowlevel.wait_readable(descriptor)
    except PermissionError:  # a regular file: always readable, and epoll takes none
        await trio.lowlevel.checkpoint()
    return os.read(descriptor, READ_BYTES)
