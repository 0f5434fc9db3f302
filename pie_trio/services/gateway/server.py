"""Accepting clients on listeners that are handed in, each connection for itself.

It owns the listeners and counts the connections. When it is cancelled, every client gets what has
already ended and a closing handshake, within the closing time. It listens on loopback addresses
only, until there is authentication.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Sequence
from typing import Generic, TypeVar

import trio

from pie_trio.config import Limits, Settings
from pie_trio.errors import BadConfig
from pie_trio.events import ClientConnected, ClientDisconnected
from pie_trio.ports import Ports
from pie_trio.services.gateway.connection import Connection
from pie_trio.services.gateway.engine_port import EngineLike, InstanceLike

I = TypeVar("I", bound=InstanceLike)  # noqa: E741
S = TypeVar("S", bound=trio.abc.Stream)


async def serve_gateway(
    engine: EngineLike[I],
    listeners: Sequence[trio.abc.Listener[S]],
    settings: Settings,
    ports: Ports,
) -> None:
    """Until it is cancelled. What clients have launched runs on without them."""
    door = _Door(engine, settings.limits, ports)
    await trio.serve_listeners(door.serve, list(listeners))


async def open_listeners(host: str, port: int, limits: Limits) -> list[trio.SocketListener]:
    """Loopback only. Port 0 lets the system choose."""
    check_loopback(host)
    listeners = await trio.open_tcp_listeners(port, host=host)
    if sys.platform == "linux":
        for listener in listeners:
            # Accepted sockets inherit it: a peer that acknowledges nothing cannot hold one open.
            patience = int(limits.client_stall_seconds * 1000)
            listener.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience)
    return listeners


def check_loopback(host: str) -> None:
    if host == "localhost":
        return
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise BadConfig(
            f"host {host!r} is not a loopback address; there is no authentication yet, so that "
            "only 127.0.0.1, ::1 and localhost are served"
        )


class _Door(Generic[I]):
    """Lets clients in, up to the bound, and says so in events."""

    def __init__(self, engine: EngineLike[I], limits: Limits, ports: Ports) -> None:
        self._engine = engine
        self._limits = limits
        self._ports = ports
        self._inside = 0
        self._count = 0

    async def serve(self, stream: trio.abc.Stream) -> None:
        if self._inside >= self._limits.clients_max:
            await trio.aclose_forcefully(stream)
            return
        self._inside += 1
        self._count += 1
        number = self._count
        self._ports.emit(ClientConnected(trio.current_time(), number))
        connection = Connection(self._engine, stream, self._limits, self._ports)
        try:
            await _watch(connection)
        finally:
            self._inside -= 1
            gone = ClientDisconnected(trio.current_time(), number, connection.reason)
            self._ports.emit(gone)


async def _watch(connection: Connection[I]) -> None:
    """Turns a cancellation from outside into a `stop`, which bounds the connection's time."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        try:
            await connection.ended.wait()
        finally:
            connection.stop()
