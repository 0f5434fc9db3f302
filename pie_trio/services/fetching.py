"""Requests to other hosts: resolve, check, connect to what was checked, speak HTTP/1.1.

It owns a connection for as long as one request lasts, and none afterwards: whoever is cancelled has
closed it. Every hop of a redirect is checked as the first one was. The time of a request is bounded
whatever the other side does, and so are its headers and its body. It never looks at a proxy.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cached_property
from typing import Final, Protocol

import attrs
import h11
import trio

from pie_trio.config import Limits
from pie_trio.errors import BadRequest, FetchFailed, TooMany
from pie_trio.fetches import FetchRequest, FetchResponse
from pie_trio.services.fetch_rules import AllowList, Place, check_request, redirected

READ_BYTES: Final = 65_536
Charge = Callable[[int], None]


class Web(Protocol):
    """The way to other hosts. Both raise `OSError`."""

    async def resolve(self, host: str, port: int) -> list[str]: ...
    async def connect(self, address: str, port: int, server_name: str | None) -> trio.abc.Stream:
        """With the name of a server: encrypted, and its certificate is checked against it."""
        ...


@attrs.frozen(eq=False)
class OpenWeb:
    """Implements `Web` by the network of this machine."""

    context: ssl.SSLContext | None = None  # none: this machine's, read when it is first needed

    @cached_property
    def _trusted(self) -> ssl.SSLContext:
        return self.context or ssl.create_default_context()

    async def resolve(self, host: str, port: int) -> list[str]:
        found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
        return list(dict.fromkeys(str(address[0]) for *_kind, address in found))

    async def connect(self, address: str, port: int, server_name: str | None) -> trio.abc.Stream:
        stream = await trio.open_tcp_stream(address, port)
        if server_name is None:
            return stream
        secure = trio.SSLStream(
            stream, self._trusted, server_hostname=server_name, https_compatible=True
        )
        try:
            await secure.do_handshake()
        except BaseException as error:
            await trio.aclose_forcefully(stream)
            if isinstance(error, trio.BrokenResourceError):
                raise OSError(str(error.__cause__ or error)) from None
            raise
        return secure


@attrs.define(eq=False)
class Fetcher:
    """Makes requests for all instances of an engine."""

    allowed: AllowList
    web: Web
    limits: Limits
    running: int = attrs.field(default=0, init=False)

    def check(self, request: FetchRequest) -> None:
        """What can be said without asking anybody. Raises `PieError`."""
        self.allowed.entry_of(check_request(request, self.limits.fetch_body_bytes))
        if self.running >= self.limits.fetches_max:
            raise TooMany(f"fetches_max: {self.running} requests are on their way")

    async def fetch(self, request: FetchRequest, charge: Charge) -> FetchResponse:
        """Raises `PieError`. Cancelled: its connection is closed."""
        limits = self.limits
        wanted = request.timeout_seconds
        seconds = limits.fetch_seconds if wanted is None else min(wanted, limits.fetch_seconds)
        self.running += 1
        try:
            with trio.fail_after(seconds):
                return await self._follow(request, charge)
        except trio.TooSlowError:
            raise FetchFailed(f"fetch: {request.url:.120} took more than {seconds:g} s") from None
        except (OSError, trio.BrokenResourceError) as error:
            raise FetchFailed(f"fetch: {request.url:.120}: {error or 'it broke off'}") from None
        finally:
            self.running -= 1

    async def _follow(self, request: FetchRequest, charge: Charge) -> FetchResponse:
        for _ in range(self.limits.fetch_redirects + 1):
            place = check_request(request, self.limits.fetch_body_bytes)
            async with self._connected(place) as stream:
                response = await _exchange(stream, place, request, charge, self.limits)
            following = redirected(request, response.status, response.headers)
            if following is None:
                return response
            request = following
        raise FetchFailed(f"fetch: more than {self.limits.fetch_redirects} redirects")

    @asynccontextmanager
    async def _connected(self, place: Place) -> AsyncIterator[trio.abc.Stream]:
        """To an address that was checked, so that no second answer can lead elsewhere."""
        entry = self.allowed.entry_of(place)
        found = await self.web.resolve(place.host, place.port)
        addresses = [address for address in found if entry.permits_address(address)]
        if not addresses:
            raise BadRequest(f"fetch: {place} is at {', '.join(found)}, which is not public")
        stream = await self._connect(addresses, place)
        try:
            yield stream
        finally:
            await trio.aclose_forcefully(stream)

    async def _connect(self, addresses: list[str], place: Place) -> trio.abc.Stream:
        name = place.host if place.scheme == "https" else None
        for address in addresses[:-1]:
            try:
                with trio.fail_after(self.limits.fetch_connect_seconds):
                    return await self.web.connect(address, place.port, name)
            except (OSError, trio.TooSlowError):
                continue
        return await self.web.connect(addresses[-1], place.port, name)


async def _exchange(
    stream: trio.abc.Stream, place: Place, request: FetchRequest, charge: Charge, limits: Limits
) -> FetchResponse:
    """One request and its answer over a connection of its own."""
    talk = h11.Connection(h11.CLIENT, max_incomplete_event_size=limits.fetch_header_bytes)
    await stream.send_all(_words(talk, place, request))
    try:
        head = await _next(talk, stream)
        while isinstance(head, h11.InformationalResponse):
            head = await _next(talk, stream)
        if not isinstance(head, h11.Response):
            raise FetchFailed(f"fetch: {place} broke off")
        body = await _body(talk, stream, charge, limits)
    except h11.RemoteProtocolError as error:
        raise FetchFailed(f"fetch: {place} does not speak HTTP: {error}") from None
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers]
    return FetchResponse(head.status_code, request.url, tuple(headers), body)


def _words(talk: h11.Connection, place: Place, request: FetchRequest) -> bytes:
    """What is sent. Raises `BadRequest`."""
    ours = [("Host", place.authority), ("Connection", "close"), ("Accept-Encoding", "identity")]
    if request.body or request.method in ("POST", "PUT", "PATCH"):
        ours.append(("Content-Length", str(len(request.body))))
    try:
        head = h11.Request(
            method=request.method, target=place.target, headers=[*ours, *request.headers]
        )
        parts = [talk.send(head)]
        if request.body:
            parts.append(talk.send(h11.Data(data=request.body)))
        parts.append(talk.send(h11.EndOfMessage()))
    except (h11.LocalProtocolError, UnicodeEncodeError) as error:
        raise BadRequest(f"fetch: the request cannot be written: {error}") from None
    return b"".join(part or b"" for part in parts)


async def _body(
    talk: h11.Connection, stream: trio.abc.Stream, charge: Charge, limits: Limits
) -> bytes:
    body = bytearray()
    while not isinstance(event := await _next(talk, stream), h11.EndOfMessage):
        if not isinstance(event, h11.Data):
            raise FetchFailed("fetch: the answer broke off")
        if len(body) + len(event.data) > limits.fetch_body_bytes:
            raise TooMany(
                f"fetch_body_bytes: the answer is longer than {limits.fetch_body_bytes} bytes"
            )
        charge(len(event.data))
        body += event.data
    return bytes(body)


async def _next(talk: h11.Connection, stream: trio.abc.Stream) -> object:
    while (event := talk.next_event()) is h11.NEED_DATA:
        data = await stream.receive_some(READ_BYTES)
        talk.receive_data(bytes(data))
    return event
