"""A host on this machine that answers as a test says, one connection a request."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import attrs
import trio

Answer = bytes | Callable[[trio.abc.Stream], Awaitable[None]]


@attrs.define(eq=False)
class WebHost:
    """Where it listens, what it was asked, and how many connections are open."""

    port: int
    asked: list[bytes] = attrs.field(factory=list)
    open: int = 0

    def url(self, path: str = "/", scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    @property
    def entry(self) -> str:
        return f"127.0.0.1:{self.port}"


def answer(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


@asynccontextmanager
async def open_web_host(
    pages: Mapping[str, Answer], context: ssl.SSLContext | None = None
) -> AsyncIterator[WebHost]:
    """Each path has an answer: bytes as they stand, or a function of the connection."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        host = WebHost(listener.socket.getsockname()[1])

        async def serve(stream: trio.abc.Stream) -> None:
            host.open += 1
            try:
                await _serve(stream if context is None else _secured(stream, context), host, pages)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            finally:
                host.open -= 1

        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield host
        nursery.cancel_scope.cancel()


def _secured(stream: trio.abc.Stream, context: ssl.SSLContext) -> trio.abc.Stream:
    return trio.SSLStream(stream, context, server_side=True, https_compatible=True)


async def _serve(stream: trio.abc.Stream, host: WebHost, pages: Mapping[str, Answer]) -> None:
    async with stream:
        request = bytearray()
        while b"\r\n\r\n" not in request:
            data = await stream.receive_some()
            if not data:
                return
            request += data
        head, _, rest = bytes(request).partition(b"\r\n\r\n")
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                missing = int(line.partition(b":")[2]) - len(rest)
                while missing > 0:
                    rest += (data := await stream.receive_some())
                    missing -= len(data)
        host.asked.append(head + b"\r\n\r\n" + rest)
        found = pages[head.split()[1].decode()]
        if isinstance(found, bytes):
            await stream.send_all(found)
        else:
            await found(stream)
