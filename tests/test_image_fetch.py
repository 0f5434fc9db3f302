"""image-fetch against a host on this machine: what the program sees is what the image is."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
import trio

from pie_trio.config import Limits
from pie_trio.messages import OutputEvent
from tests.support.web_host import answer, open_web_host
from tests.world import open_world, read_all

WIDTH, HEIGHT = 5, 5
BLIND = "; unavailable: this model does not see images"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def pixel(x: int, y: int) -> bytes:
    return bytes([(40 * x) & 255, (50 * y + 7 * x) & 255, (x * y * 13) & 255])


def filtered(kind: int, row: bytes, above: bytes) -> bytes:
    """As an encoder filters a row; the five kinds of the PNG specification, section 9."""
    out = bytearray([kind])
    for place, value in enumerate(row):
        left = row[place - 3] if place >= 3 else 0
        corner = above[place - 3] if place >= 3 else 0
        up = above[place]
        guess = left + up - corner
        distances = (abs(guess - left), abs(guess - up), abs(guess - corner))
        paeth = (left, up, corner)[distances.index(min(distances))]
        out.append((value - (0, left, up, (left + up) // 2, paeth)[kind]) & 255)
    return bytes(out)


def png() -> bytes:
    """Each row has another filter."""
    rows = [b"".join(pixel(x, y) for x in range(WIDTH)) for y in range(HEIGHT)]
    above = [bytes(3 * WIDTH), *rows]
    raw = b"".join(filtered(y, row, above[y]) for y, row in enumerate(rows))
    head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def means() -> tuple[int, ...]:
    places = [(x, y) for x in range(WIDTH) for y in range(HEIGHT)]
    return tuple(sum(pixel(x, y)[c] for x, y in places) // len(places) for c in range(3))


JPEG = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc0\x00\x0b\x08\x00\x20\x00\x30\x01\x01\x11\x00"
GIF = b"GIF89a" + struct.pack("<HH", 7, 9) + b"\x00\x00\x00"


async def test_an_image_is_fetched_decoded_and_described(tmp_path: Path) -> None:
    pages = {
        "/": answer(b"", "302 Found", Location="/image.png"),
        "/image.png": answer(png()),
        "/a.jpeg": answer(JPEG),
        "/a.gif": answer(GIF),
    }
    async with (
        open_web_host(pages) as host,
        open_world(tmp_path, allow=(host.entry,), records=True) as world,
    ):
        described = {
            "/": f"{len(png())} bytes: PNG, 5 x 5 pixels, mean {means()}",
            "/a.jpeg": f"{len(JPEG)} bytes: JPEG, 48 x 32 pixels",
            "/a.gif": f"{len(GIF)} bytes: GIF, 7 x 9 pixels",
        }
        for path, found in described.items():
            events = await read_all(await world.launch("image-fetch", "--url", host.url(path)))
            assert events == [
                OutputEvent("message", found),
                OutputEvent("message", BLIND),
                OutputEvent("return", found),
            ]


@pytest.mark.parametrize("path", ["/gone", "/text"])
async def test_what_is_no_image_is_told(tmp_path: Path, path: str) -> None:
    pages = {"/gone": answer(b"", "404 Not Found"), "/text": answer(b"just words")}
    async with (
        open_web_host(pages) as host,
        open_world(tmp_path, allow=(host.entry,)) as world,
    ):
        end = await world.run("image-fetch", "--url", host.url(path))
        assert end.error is not None
        assert ("answers 404" in end.error) or ("neither PNG" in end.error)


async def test_a_host_that_is_not_allowed_is_never_asked(tmp_path: Path) -> None:
    async with open_web_host({"/": answer(png())}) as host, open_world(tmp_path) as world:
        end = await world.run("image-fetch", "--url", host.url())
        assert end.error is not None
        assert "is not on the allow list of this engine (none)" in end.error
        assert not host.asked


async def test_a_program_that_is_ended_closes_its_connection(tmp_path: Path) -> None:
    asked = trio.Event()

    async def silent(stream: trio.abc.Stream) -> None:
        asked.set()
        await stream.receive_some()

    async with (
        open_web_host({"/": silent}) as host,
        open_world(tmp_path, allow=(host.entry,)) as world,
    ):
        instance = await world.launch("image-fetch", "--url", host.url())
        with trio.fail_after(30):
            await asked.wait()
            instance.terminate()
            await instance.ended.wait()
            while host.open:  # noqa: ASYNC110
                await trio.sleep(0.001)


async def test_more_than_the_host_may_keep_is_refused(tmp_path: Path) -> None:
    limits = Limits(guest_held_bytes=1000)
    async with (
        open_web_host({"/": answer(bytes(2000))}) as host,
        open_world(tmp_path, allow=(host.entry,), limits=limits) as world,
    ):
        end = await world.run("image-fetch", "--url", host.url())
        assert end.error is not None
        assert "guest_held_bytes" in end.error
