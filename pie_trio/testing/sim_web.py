"""Other hosts without a network: names that lead somewhere, and what is said there.

The engine may talk to `web.sim` and `inside.sim` and to nobody else. The first has two addresses,
of which one never answers; the second leads into a private network, which its fetcher has to see.
Faults of the network strike in the streams. A connection to any other place is noted as a trespass.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import attrs
import trio

from pie_trio.testing.faults import FaultPlan
from pie_trio.testing.sim_net import BUFFER_BYTES, Direction, SimStream

ALLOWED: Final = ("web.sim", "inside.sim")
HOME: Final = "93.184.216.34"
DEAD: Final = "93.184.216.35"
ADDRESSES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "web.sim": (DEAD, HOME),
        "inside.sim": ("10.0.0.1",),
        "other.sim": ("93.184.216.66",),
    }
)
SECONDS: Final = 0.005  # of every way to go
PIECE: Final = 40  # bytes
BODY: Final = "what the other host says, in more pieces than one: " + "word " * 20


def _answer(status: str, body: str = "", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\n{more}Content-Length: {len(body)}\r\n\r\n{body}".encode()


PAGES: Final[Mapping[str, bytes]] = MappingProxyType(
    {
        "/": b"HTTP/1.1 100 Continue\r\n\r\n" + _answer("200 OK", BODY),
        "/moved": _answer("302 Found", more="Location: /\r\n"),
        "/away": _answer("302 Found", more="Location: http://other.sim/\r\n"),
    }
)


@attrs.define(eq=False)
class SimWeb:
    """Implements `services.fetching.Web`."""

    plan: FaultPlan
    nursery: trio.Nursery  # of the other hosts
    streams: list[SimStream] = attrs.field(factory=list)  # our ends, ever
    trespasses: list[str] = attrs.field(factory=list)

    async def resolve(self, host: str, port: int) -> list[str]:
        await trio.sleep(SECONDS)
        if host not in ADDRESSES:
            raise OSError(f"{host} is no host")
        return list(ADDRESSES[host])

    async def connect(self, address: str, port: int, server_name: str | None) -> SimStream:
        if address not in (HOME, DEAD) or port != 80:
            self.trespasses.append(f"{address}:{port}")
        await trio.sleep(SECONDS)
        if address == DEAD or self.plan.strikes("net.refuse"):
            raise ConnectionRefusedError(f"nobody listens at {address}")
        to_host, to_us = Direction(BUFFER_BYTES), Direction(BUFFER_BYTES)
        ours = SimStream(to_host, to_us, self.plan, is_client=True)
        theirs = SimStream(to_us, to_host, self.plan, is_client=False)
        self.streams.append(ours)
        self.nursery.start_soon(_serve, theirs)
        return ours


async def _serve(stream: SimStream) -> None:
    """One request; it is answered piece by piece, for as long as somebody listens."""
    asked = b""
    try:
        while b"\r\n\r\n" not in asked:
            data = await stream.receive_some()
            if not data:
                return
            asked += data
        answer = PAGES[asked.split()[1].decode()]
        for start in range(0, len(answer), PIECE):
            await trio.sleep(SECONDS)
            await stream.send_all(answer[start : start + PIECE])
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return
    finally:
        stream.out.end()
        stream.into.break_off()
