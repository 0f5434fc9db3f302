"""Requests to a host on this machine: what comes back, what is refused, what is left behind."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from pie_trio.config import Limits
from pie_trio.errors import BadRequest, FetchFailed, PieError, TooMany
from pie_trio.fetches import FetchRequest, FetchResponse
from pie_trio.services.fetch_rules import AllowList
from pie_trio.services.fetching import Fetcher, OpenWeb, Web
from tests.support.web_host import WebHost, answer, open_web_host

CERTIFICATE = Path(__file__).parent / "support" / "localhost.pem"


async def ask(
    host: WebHost,
    path: str = "/",
    method: str = "GET",
    *,
    limits: Limits | None = None,
    web: Web | None = None,
    url: str = "",
    **more: object,
) -> FetchResponse:
    fetcher = Fetcher(AllowList.parse([host.entry]), web or OpenWeb(), limits or Limits())
    request = FetchRequest(method, url or host.url(path), **more)  # type: ignore[arg-type]
    try:
        return await fetcher.fetch(request, lambda _size: None)
    finally:
        assert fetcher.running == 0


async def closed(host: WebHost) -> None:
    """Every connection has been closed by the one that asked."""
    with trio.fail_after(5):
        while host.open:  # noqa: ASYNC110
            await trio.sleep(0.001)


async def test_an_answer_comes_with_its_status_headers_and_body() -> None:
    async with open_web_host({"/a?b": answer(b"hello", "201 Created", X_Mine="yes")}) as host:
        found = await ask(host, "/a?b", headers=(("X-Asked", "politely"),))
        assert (found.status, found.body, found.url) == (201, b"hello", host.url("/a?b"))
        assert ("x-mine", "yes") in found.headers
        (asked,) = host.asked
        assert asked.startswith(b"GET /a?b HTTP/1.1\r\n")
        assert f"Host: 127.0.0.1:{host.port}\r\n".encode() in asked
        assert b"X-Asked: politely" in asked
        await closed(host)


async def test_a_body_is_sent_whole() -> None:
    body = bytes(range(256)) * 1000
    async with open_web_host({"/": answer(b"")}) as host:
        await ask(host, method="POST", body=body)
        assert host.asked[0].endswith(b"\r\n\r\n" + body)


async def test_an_answer_in_chunks_and_one_that_ends_with_its_connection_are_whole() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    ending = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nabc"
    async with open_web_host({"/chunks": chunked, "/end": ending}) as host:
        assert (await ask(host, "/chunks")).body == b"abc"
        assert (await ask(host, "/end")).body == b"abc"


async def test_redirects_are_followed_to_allowed_hosts_only() -> None:
    elsewhere = "http://127.0.0.1:1/secret"
    async with open_web_host(
        {
            "/": answer(b"", "302 Found", Location="/there"),
            "/there": answer(b"here"),
            "/out": answer(b"", "302 Found", Location=elsewhere),
            "/round": answer(b"", "302 Found", Location="/round"),
        }
    ) as host:
        found = await ask(host)
        assert (found.body, found.url) == (b"here", host.url("/there"))
        with pytest.raises(BadRequest, match=r"127.0.0.1:1 is not on the allow list"):
            await ask(host, "/out")
        with pytest.raises(FetchFailed, match="more than 5 redirects"):
            await ask(host, "/round")
        assert len(host.asked) == 2 + 1 + 6


class LyingWeb(OpenWeb):
    """A name server that says that a public name is this machine."""

    async def resolve(self, host: str, port: int) -> list[str]:
        return ["127.0.0.1"]


async def test_a_public_name_that_leads_to_this_machine_is_never_connected_to() -> None:
    async with open_web_host({"/": answer(b"secret")}) as host:
        fetcher = Fetcher(AllowList.parse([f"example.com:{host.port}"]), LyingWeb(), Limits())
        request = FetchRequest("GET", f"http://example.com:{host.port}/")
        with pytest.raises(BadRequest, match=r"is at 127.0.0.1, which is not public"):
            await fetcher.fetch(request, lambda _size: None)
        assert not host.asked
        assert not host.open


async def never(stream: trio.abc.Stream) -> None:
    """Hears everything, says nothing."""
    while await stream.receive_some():
        pass


async def drips(stream: trio.abc.Stream) -> None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        await stream.send_all(b"x")
        await trio.sleep(0.01)


async def breaks_off(stream: trio.abc.Stream) -> None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab")


@pytest.mark.parametrize(
    ("page", "kind", "told"),
    [
        (never, FetchFailed, "took more than 0.2 s"),
        (drips, FetchFailed, "took more than 0.2 s"),
        (breaks_off, FetchFailed, "does not speak HTTP"),
        (b"", FetchFailed, "broke off|does not speak HTTP"),
        (b"SSH-2.0-server\r\n\r\n", FetchFailed, "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 400, FetchFailed, "does not speak HTTP"),
        (answer(b"x" * 2001), TooMany, "fetch_body_bytes"),
    ],
)
async def test_whatever_the_other_host_does_ends_by_name_and_closes_the_connection(
    page: bytes | Callable[[trio.abc.Stream], Awaitable[None]], kind: type[PieError], told: str
) -> None:
    limits = Limits(fetch_seconds=0.2, fetch_body_bytes=2000, fetch_header_bytes=1000)
    async with open_web_host({"/": page}) as host:
        with pytest.raises(kind, match=told):
            await ask(host, limits=limits)
        await closed(host)


async def test_a_request_that_is_cancelled_closes_its_connection() -> None:
    async with open_web_host({"/": drips}) as host:
        with trio.move_on_after(0.1) as scope:
            await ask(host)
        assert scope.cancelled_caught
        await closed(host)


async def test_nobody_there_and_no_such_name_are_told() -> None:
    async with open_web_host({}) as host:
        port = host.port
    with pytest.raises(FetchFailed, match=f"127.0.0.1:{port}"):
        await ask(WebHost(port))


async def test_what_cannot_be_written_as_a_header_is_refused_before_anything_is_sent() -> None:
    async with open_web_host({"/": answer(b"")}) as host:
        for value in ("a\r\nHost: evil.org", "ä\u20ac"):
            with pytest.raises(BadRequest, match="cannot be written"):
                await ask(host, headers=(("X", value),))
        assert not host.asked


async def test_a_certificate_is_checked() -> None:
    """It is of 127.0.0.1, and nobody but this test vouches for it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    trusting = OpenWeb(ssl.create_default_context(cafile=str(CERTIFICATE)))
    async with open_web_host({"/": answer(b"secret")}, context) as host:
        url = host.url(scheme="https")
        assert (await ask(host, url=url, web=trusting)).body == b"secret"
        with pytest.raises(FetchFailed, match="CERTIFICATE_VERIFY_FAILED"):
            await ask(host, url=url)
        assert len(host.asked) == 1
