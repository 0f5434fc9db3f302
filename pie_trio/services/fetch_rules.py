"""Which requests to other hosts may be made: an allow list of hosts, and of their addresses.

Pure. A place is allowed when an entry names its host and its port; an address when it is a public
one, or the very one that the entry names. So a name on the list cannot lead into the private
network, whatever its owner answers. Everything else is refused by name before anything is sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import urljoin, urlsplit

import attrs

from pie_trio.errors import BadConfig, BadRequest
from pie_trio.fetches import FetchRequest, Headers

PORTS: Final = {"http": 80, "https": 443}
METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
# What says how the message itself is framed or where it goes is ours to say.
OUR_HEADERS: Final = frozenset(
    (
        *("host", "connection", "content-length", "transfer-encoding", "te", "trailer"),
        *("upgrade", "expect", "keep-alive", "accept-encoding"),
    )
)
SECRETS: Final = frozenset(("authorization", "cookie", "proxy-authorization"))
REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
HOST_NAME: Final = re.compile(r"(?!.{254})[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
# Addresses of the next protocol that stand for one of the older: what counts is that one.
TRANSLATED: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
Address = IPv4Address | IPv6Address


@attrs.frozen
class Place:
    """Where a request goes."""

    scheme: str
    host: str  # lower case; an address without brackets
    port: int
    target: str  # path and query

    @property
    def authority(self) -> str:
        """As the `Host` header has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> tuple[str, str, int]:
        return (self.scheme, self.host, self.port)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@attrs.frozen
class Entry:
    """One line of the allow list: a host, and its port unless it is the usual one."""

    host: str
    port: int | None

    def permits(self, place: Place) -> bool:
        port = PORTS[place.scheme] if self.port is None else self.port
        return (place.host, place.port) == (self.host, port)

    def permits_address(self, text: str) -> bool:
        address = _meant(ip_address(text.partition("%")[0]))
        named = _address(self.host)
        if named is not None:
            return address == _meant(named)
        if self.host == "localhost":
            return address.is_loopback
        return address.is_global and not address.is_multicast


@attrs.frozen
class AllowList:
    """The hosts that guests may talk to; none is the usual case."""

    entries: tuple[Entry, ...] = ()

    @classmethod
    def parse(cls, texts: Iterable[str]) -> AllowList:
        """Raises `BadConfig`."""
        return cls(tuple(map(_entry, texts)))

    def entry_of(self, place: Place) -> Entry:
        """Raises `BadRequest`."""
        for entry in self.entries:
            if entry.permits(place):
                return entry
        known = ", ".join(entry.host for entry in self.entries) or "none"
        raise BadRequest(
            f"fetch: {place} is not on the allow list of this engine ({known}); "
            "`--allow-fetch HOST` or `allow` in `[fetch]` adds it"
        )


def _entry(text: str) -> Entry:
    wrong = BadConfig(f"fetch.allow: {text!r} is no HOST or HOST:PORT")
    parts = urlsplit(f"//{text}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        raise wrong from None
    if host is None or parts.username is not None or parts.netloc != text or port == 0:
        raise wrong
    if _address(host) is None and not HOST_NAME.fullmatch(host.rstrip(".")):
        raise wrong
    return Entry(_plain(host), port)


def _plain(host: str) -> str:
    """One spelling of each host."""
    address = _address(host)
    return host.lower().rstrip(".") if address is None else str(address)


def _address(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _meant(address: Address) -> Address:
    """The older address that one of the next protocol stands for."""
    if isinstance(address, IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and address.teredo is not None:
        inner = address.teredo[1]
    if inner is None and any(address in network for network in TRANSLATED):
        inner = IPv4Address(int(address) & 0xFFFFFFFF)
    return address if inner is None else inner


def place_of(url: str) -> Place:
    """Raises `BadRequest`."""
    if not all("!" <= character <= "~" for character in url):
        raise BadRequest(f"fetch: {url!r:.120} is no URL: encode spaces and letters beyond ASCII")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise BadRequest(f"fetch: {url!r:.120} is no URL: {error}") from None
    if parts.scheme not in PORTS or not host or port == 0:
        raise BadRequest(f"fetch: {url!r:.120} is no URL of the form http(s)://host/path")
    if parts.username is not None or parts.password is not None:
        raise BadRequest("fetch: a URL may not name a user; use an authorization header")
    host = _plain(host)
    if _address(host) is None and not HOST_NAME.fullmatch(host):
        raise BadRequest(f"fetch: {host!r:.120} is no name of a host")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Place(parts.scheme, host, port or PORTS[parts.scheme], target)


def check_request(request: FetchRequest, body_max: int) -> Place:
    """Where it goes. Raises `BadRequest`."""
    if request.method not in METHODS:
        raise BadRequest(f"fetch: {request.method!r:.40} is none of {', '.join(sorted(METHODS))}")
    if len(request.body) > body_max:
        size = len(request.body)
        raise BadRequest(f"fetch: a body of {size} bytes; at most {body_max} (fetch_body_bytes)")
    for name, _value in request.headers:
        if name.lower() in OUR_HEADERS:
            raise BadRequest(f"fetch: the header {name} is not for the program to set")
    return place_of(request.url)


def redirected(request: FetchRequest, status: int, headers: Headers) -> FetchRequest | None:
    """The request that follows from an answer, as browsers do it; none if that was the last."""
    location = next((value for name, value in headers if name.lower() == "location"), None)
    if status not in REDIRECTS or location is None:
        return None
    before, url = place_of(request.url), urljoin(request.url, location)
    after = place_of(url)
    if (before.scheme, after.scheme) == ("https", "http"):
        raise BadRequest(f"fetch: {before} redirects to {url:.120}, which is not encrypted")
    kept = request.headers
    if after.origin != before.origin:
        kept = tuple(pair for pair in kept if pair[0].lower() not in SECRETS)
    is_read = status == 303 or (status in (301, 302) and request.method == "POST")
    if is_read and request.method != "HEAD":
        kept = tuple(pair for pair in kept if not pair[0].lower().startswith("content-"))
        return attrs.evolve(request, url=url, method="GET", body=b"", headers=kept)
    return attrs.evolve(request, url=url, headers=kept)
