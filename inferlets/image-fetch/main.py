"""image-fetch: fetches an image and says what is in it, as far as no model is needed."""

import base64
import struct
import zlib
from collections.abc import Iterator

from inferlet import ArgumentParser, fetch, get_model, send

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a pixel, by the colour type of the PNG
PIXELS_MAX = 1_000_000
PNG, JPEG, GIF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"GIF8"


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = len(PNG)
    while place + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        yield kind, data[place + 8 : place + 8 + size]
        place += size + 12


def predict(kind: int, left: int, up: int, corner: int) -> int:
    nearest = min((left, up, corner), key=lambda value: abs(left + up - corner - value))
    return (0, left, up, (left + up) // 2, nearest)[kind]


def decode_png(data: bytes) -> tuple[int, int, list[bytes], int]:
    """Width, height, rows and the channels of a pixel."""
    parts = list(chunks(data))
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", dict(parts)[b"IHDR"])
    if depth != 8 or interlaced or not 0 < width * height <= PIXELS_MAX:
        raise ValueError("only PNG of eight bits, not interlaced, of a million pixels at most")
    step = CHANNELS[colour]
    stride = width * step
    packed = b"".join(part for kind, part in parts if kind == b"IDAT")
    raw = zlib.decompressobj().decompress(packed, height * (stride + 1))
    rows, above = [], bytes(stride)
    for start in range(0, height * (stride + 1), stride + 1):
        row = bytearray(raw[start + 1 : start + 1 + stride])
        for place in range(stride):
            left, corner = (row[place - step], above[place - step]) if place >= step else (0, 0)
            row[place] = (row[place] + predict(raw[start], left, above[place], corner)) & 255
        above = bytes(row)
        rows.append(above)
    return width, height, rows, step


def jpeg_size(data: bytes) -> tuple[int, int]:
    place = 2
    while place + 9 <= len(data):
        marker, size = struct.unpack_from(">HH", data, place)
        if 0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC):
            height, width = struct.unpack_from(">HH", data, place + 5)
            return width, height
        place += size + 2
    raise ValueError("a JPEG without a frame")


def describe(data: bytes) -> str:
    if data.startswith(PNG):
        width, height, rows, step = decode_png(data)
        means = [sum(sum(row[c::step]) for row in rows) // (width * height) for c in range(step)]
        return f"PNG, {width} x {height} pixels, mean {tuple(means)}"
    if data.startswith(JPEG):
        return "JPEG, {} x {} pixels".format(*jpeg_size(data))
    if data.startswith(GIF):
        return "GIF, {} x {} pixels".format(*struct.unpack_from("<HH", data, 6))
    raise ValueError("neither PNG nor JPEG nor GIF")


async def read(url: str) -> bytes:
    if url.startswith("data:"):
        return base64.b64decode(url.partition(",")[2])
    answer = await fetch(url)
    if answer.status != 200:
        raise SystemExit(f"{answer.url} answers {answer.status}")
    return answer.body


async def main(args: list[str]) -> str:
    parser = ArgumentParser("image-fetch", "fetches an image and says what is in it")
    parser.add_argument("--url", required=True, help="where it is; the engine must allow the host")
    try:
        image = await read(parser.parse_args(args).url)
        found = f"{len(image)} bytes: {describe(image)}"
    except ValueError as wrong:
        raise SystemExit(f"no image: {wrong}") from None
    except (LookupError, struct.error, zlib.error):
        raise SystemExit("no image: it is damaged, or cut off") from None
    send(found)
    if "input_image" not in get_model().traits:
        send("; unavailable: this model does not see images")
    return found
