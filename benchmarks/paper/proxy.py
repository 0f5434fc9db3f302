"""A TCP proxy on loopback that delays what passes: half of a round trip each way.

Bytes keep their order and nothing is lost but when an end goes away, which closes the other one. It
delays only: as much as comes passes at once, so it never is a bottleneck of its own.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import trio

CHUNK_BYTES = 64 * 1024
Late = tuple[float, bytes]


@asynccontextmanager
async def open_proxy(address: str, round_trip_seconds: float) -> AsyncIterator[str]:
    """The address at which the server answers so late."""
    server = urlsplit(address)
    assert server.hostname is not None, "the address names a host"
    assert server.port is not None, "the address names a port"
    host, port, delay = server.hostname, server.port, round_trip_seconds / 2

    async def serve(near: trio.SocketStream) -> None:
        far = await trio.open_tcp_stream(host, port)
        async with near, far, trio.open_nursery() as nursery:
            nursery.start_soon(_pass_on, near, far, delay, nursery.cancel_scope)
            nursery.start_soon(_pass_on, far, near, delay, nursery.cancel_scope)

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def _pass_on(
    source: trio.SocketStream, target: trio.SocketStream, delay: float, both: trio.CancelScope
) -> None:
    """One direction; when its source ends, both do."""
    send, receive = trio.open_memory_channel[Late](math.inf)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_write_late, receive, target, both)
        try:
            while data := await source.receive_some(CHUNK_BYTES):
                send.send_nowait((trio.current_time() + delay, data))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        send.close()


async def _write_late(
    receive: trio.MemoryReceiveChannel[Late], target: trio.SocketStream, both: trio.CancelScope
) -> None:
    try:
        async for due, data in receive:
            await trio.sleep_until(due)
            await target.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    both.cancel()
