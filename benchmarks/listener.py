"""A client that hears tokens and does next to nothing else, so that it takes nobody's processor.

It speaks as much of the protocol as launching and listening needs, over a plain socket: what is
measured is the server, and a client is usually on another machine. It never checks what it hears.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgpack

from pie_trio.client.remote import PRINTED, TERMINALS
from pie_trio.services.client_messages import AuthIdentify, LaunchProcess
from pie_trio.services.client_protocol import encode

SECONDS_MAX = 120.0
CHUNK_BYTES = 1 << 18
UPGRADE = (
    "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
Times = dict[str, list[float]]


def listen(address: str, program: str, arguments: Sequence[str], count: int) -> list[list[float]]:
    """When each text of each of `count` instances, launched at once, was there."""
    host, port = address.removeprefix("ws://").split(":")
    with socket.create_connection((host, int(port)), SECONDS_MAX) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line.sendall(UPGRADE.encode())
        rest = _after_headers(line)
        line.sendall(frame(encode(AuthIdentify(corr_id=1, username="bench"))))
        asked = json.dumps({"args": list(arguments)})
        for number in range(2, count + 2):
            launch = LaunchProcess(
                corr_id=number, inferlet=program, input=asked, capture_outputs=True
            )
            line.sendall(frame(encode(launch)))
        return list(_hear(line, rest, count).values())


def _after_headers(line: socket.socket) -> bytes:
    heard = b""
    while b"\r\n\r\n" not in heard:
        heard += line.recv(CHUNK_BYTES)
    assert heard.startswith(b"HTTP/1.1 101"), heard
    return heard[heard.index(b"\r\n\r\n") + 4 :]


def frame(payload: bytes) -> bytes:
    """One binary message; the mask is all zeros, so the payload stands as it is."""
    assert len(payload) < 1 << 16, "a launch is short"
    if len(payload) < 126:
        return struct.pack(">BB", 0x82, 0x80 | len(payload)) + bytes(4) + payload
    return struct.pack(">BBH", 0x82, 0x80 | 126, len(payload)) + bytes(4) + payload


def _hear(line: socket.socket, rest: bytes, count: int) -> Times:
    times: Times = {}
    ended = 0
    buffer = bytearray(rest)
    while ended < count:
        now = time.perf_counter()
        for message in messages(buffer):
            if message["type"] != "process_event":
                assert message.get("ok", True), message
            elif message["event"] in PRINTED:
                times.setdefault(message["process_id"], []).append(now)
            elif message["event"] in TERMINALS:
                assert message["event"] == "return", message
                ended += 1
        if ended < count:
            chunk = line.recv(CHUNK_BYTES)
            assert chunk, "the server hung up"
            buffer += chunk
    return times


def messages(buffer: bytearray) -> Iterator[dict[str, Any]]:
    """Those that are whole; they leave the buffer."""
    start = 0
    while len(buffer) - start >= 2:
        size, header = buffer[start + 1], 2
        if size >= 126:
            header = 4 if size == 126 else 10
            size = int.from_bytes(buffer[start + 2 : start + header])
        end = start + header + size
        if len(buffer) < end:
            break
        if buffer[start] & 0x0F == 2:
            yield msgpack.unpackb(bytes(buffer[start + header : end]))
        start = end
    del buffer[:start]
