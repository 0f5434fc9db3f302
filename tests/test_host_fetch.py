"""`pie:ext/fetch` as a guest sees it, over the real engine and a host on this machine."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio

from pie_trio.config import Limits
from pie_trio.testing.guests import Script, ScriptHost
from pie_trio.wasm.codec import Err
from pie_trio.wasm.host.fetch import FETCH, Pending
from pie_trio.wasm.wasi.poll import POLL
from tests.family import open_family
from tests.support.command import pie
from tests.support.web_host import WebHost, answer, open_web_host


async def send(guest: ScriptHost, url: str, method: str = "GET", **more: Any) -> Any:
    headers, body = more.get("headers", []), more.get("body", b"")
    return await guest.call(FETCH["send"], method, url, headers, body, more.get("timeout_ms"))


async def get(guest: ScriptHost, pending: Pending) -> Any:
    pollable = await guest.call(FETCH["[method]pending.pollable"], pending)
    await guest.call(POLL["[method]pollable.block"], pollable)
    return await guest.call(FETCH["[method]pending.get"], pending)


async def silent(stream: trio.abc.Stream) -> None:
    await stream.receive_some()


async def told(
    root: Path, script: Callable[[ScriptHost, WebHost], Any], limits: Limits | None = None
) -> str:
    """What a guest returns; afterwards every connection has been closed."""
    pages = {"/": answer(b"hello", X_Mine="yes"), "/silent": silent, "/big": answer(bytes(900))}
    async with open_web_host(pages) as host:

        async def asks(guest: ScriptHost) -> str:
            return str(await script(guest, host))

        programs: dict[str, Script] = {"asks": asks}
        async with open_family(root, programs, limits, allow=(host.entry,)) as world:
            end = await world.run("sim-asks")
            assert end.error is None, end.error
        with trio.fail_after(5):
            while host.open:  # noqa: ASYNC110
                await trio.sleep(0.001)
    return end.value


async def test_an_answer_is_none_until_it_came_and_charged_until_it_is_dropped(
    tmp_path: Path,
) -> None:
    async def asks(guest: ScriptHost, host: WebHost) -> str:
        pending = await send(guest, host.url(), "POST", headers=[("X", "y")], body=b"ab")
        with closing(pending):
            assert await guest.call(FETCH["[method]pending.get"], pending) is None
            found = await get(guest, pending)
            assert (found["status"], found["url"]) == (200, host.url())
            assert ("x-mine", "yes") in found["headers"]
            assert await get(guest, pending) == found
            held = guest.host.held.bytes_held
        return f"{found['body']!r} {held} {guest.host.held.bytes_held}"

    assert await told(tmp_path, asks) == "b'hello' 7 0"


async def test_a_request_that_is_dropped_is_broken_off(tmp_path: Path) -> None:
    async def asks(guest: ScriptHost, host: WebHost) -> str:
        pending = await send(guest, host.url("/silent"))
        with trio.fail_after(5):
            while not host.open:  # noqa: ASYNC110
                await trio.sleep(0.001)
            pending.close()
            while host.open:  # noqa: ASYNC110
                await trio.sleep(0.001)
        return "closed"

    assert await told(tmp_path, asks) == "closed"


async def test_a_guest_that_returns_leaves_no_connection(tmp_path: Path) -> None:
    async def asks(guest: ScriptHost, host: WebHost) -> str:
        await send(guest, host.url("/silent"))
        with trio.fail_after(5):
            while not host.open:  # noqa: ASYNC110
                await trio.sleep(0.001)
        return "gone"

    assert await told(tmp_path, asks) == "gone"


@pytest.mark.parametrize(
    ("path", "more", "limits", "tag", "text"),
    [
        ("/silent", {"timeout_ms": 50}, Limits(), "failed", "took more than 0.05 s"),
        ("/silent", {"timeout_ms": 0}, Limits(), "failed", "took more than 0 s"),
        ("/big", {}, Limits(fetch_body_bytes=800), "budget-exceeded", "fetch_body_bytes"),
        ("/big", {}, Limits(guest_held_bytes=800), "budget-exceeded", "guest_held_bytes"),
        ("/", {"method": "TRACE"}, Limits(), "invalid", "is none of"),
        ("/", {"body": bytes(9)}, Limits(guest_held_bytes=8), "budget-exceeded", "guest_held"),
        ("/ä", {}, Limits(), "invalid", "is no URL"),
        ("/", {}, Limits(fetches_per_instance=0), "budget-exceeded", "fetches_per_instance"),
        ("/", {}, Limits(fetches_max=0), "budget-exceeded", "fetches_max"),
    ],
)
async def test_what_goes_wrong_is_a_value_that_says_whose_fault_it_is(
    tmp_path: Path, path: str, more: dict[str, Any], limits: Limits, tag: str, text: str
) -> None:
    async def asks(guest: ScriptHost, host: WebHost) -> str:
        pending = await send(guest, host.url(path), **more)
        if isinstance(pending, Err):
            found = pending
        else:
            with closing(pending):
                found = await get(guest, pending)
        assert isinstance(found, Err)
        assert guest.host.held.bytes_held == 0
        assert found.payload.tag == tag
        return str(found.payload.payload)

    assert text in await told(tmp_path, asks, limits)


async def test_another_host_is_refused_at_once(tmp_path: Path) -> None:
    async def asks(guest: ScriptHost, host: WebHost) -> str:
        found = await send(guest, "https://example.com/")
        assert isinstance(found, Err)
        return f"{found.payload.tag}: {found.payload.payload}"

    assert (await told(tmp_path, asks)).startswith("invalid: fetch: example.com:443 is not on")


def test_the_command_line_refuses_what_names_no_host(tmp_path: Path) -> None:
    ended = pie(tmp_path, "run", "--pretend", "--allow-fetch", "https://example.com", "helloworld")
    assert (ended.returncode, "is no HOST or HOST:PORT" in ended.stderr) == (2, True)


def test_a_flag_of_the_command_line_allows_a_host(tmp_path: Path) -> None:
    port = "127.0.0.1:1"
    program = ("image-fetch", "--", "--url", f"http://{port}/")
    without = pie(tmp_path, "run", "--pretend", *program)
    assert "is not on the allow list" in without.stderr
    allowed = pie(tmp_path, "run", "--pretend", "--allow-fetch", port, *program)
    assert "is not on the allow list" not in allowed.stderr
    assert f"http://{port}/" in allowed.stderr
