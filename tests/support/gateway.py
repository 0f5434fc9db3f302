"""A gateway over memory streams and over loopback, in front of a scripted engine.

`World.connect` is a client of ours, `World.raw` a WebSocket without a protocol on top.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import msgpack
import trio
import trio_websocket
from trio.testing import memory_stream_pair

from pie_trio.client import Client, open_client_on
from pie_trio.config import Limits, Settings
from pie_trio.events import Event
from pie_trio.ports import Ports, RandomStreams
from pie_trio.services.gateway import open_listeners, serve_gateway
from tests.support.scripted_engine import ScriptedEngine, open_scripted_engine

Map = dict[str, object]


class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """Accepts the streams that `offer` brings."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[trio.abc.Stream](16)

    async def offer(self, stream: trio.abc.Stream) -> None:
        await self._send.send(stream)

    async def accept(self) -> trio.abc.Stream:
        return await self._receive.receive()

    async def aclose(self) -> None:
        self._receive.close()


@attrs.define(eq=False)
class RawClient:
    """Sends frames as they are, and reads maps."""

    socket: trio_websocket.WebSocketConnection

    async def send(self, frame: bytes | Map) -> None:
        data = frame if isinstance(frame, bytes) else msgpack.packb(frame)
        await self.socket.send_message(data)

    async def receive(self) -> Map:
        with trio.fail_after(10):
            message: Map = msgpack.unpackb(await self.socket.get_message())
        return message

    async def ask(self, frame: bytes | Map) -> Map:
        await self.send(frame)
        return await self.receive()

    async def authenticate(self, user: str = "ann") -> None:
        answer = await self.ask({"type": "auth_identify", "username": user, "corr_id": 1})
        assert answer["ok"] is True


@attrs.define(eq=False)
class World:
    """A running gateway."""

    engine: ScriptedEngine
    limits: Limits
    listener: MemoryListener
    port: int
    stop_serving: trio.CancelScope
    stopped: trio.Event
    events: list[Event]

    async def stream(self) -> trio.abc.Stream:
        """A fresh connection's client end."""
        ours, theirs = memory_stream_pair()
        await self.listener.offer(theirs)
        return ours

    @asynccontextmanager
    async def connect(self, user: str = "ann") -> AsyncIterator[Client]:
        async with open_client_on(await self.stream(), user=user, limits=self.limits) as client:
            yield client

    @asynccontextmanager
    async def raw(self, *, user: str | None = "ann") -> AsyncIterator[RawClient]:
        async with trio.open_nursery() as nursery:
            stream = await self.stream()
            socket = await trio_websocket.wrap_client_stream(
                nursery,
                stream,  # type: ignore[arg-type]
                "localhost",
                "/",
            )
            client = RawClient(socket)
            if user is not None:
                await client.authenticate(user)
            yield client
            await stream.aclose()
            nursery.cancel_scope.cancel()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"


@asynccontextmanager
async def open_world(root: Path, limits: Limits | None = None) -> AsyncIterator[World]:
    limits = limits or Limits()
    events: list[Event] = []
    ports = Ports(RandomStreams(0), emit=events.append)
    listener = MemoryListener()
    [loopback] = await open_listeners("127.0.0.1", 0, limits)
    port = loopback.socket.getsockname()[1]
    serving = trio.CancelScope()
    stopped = trio.Event()

    async def serve(engine: ScriptedEngine) -> None:
        settings = Settings(limits=limits)
        with serving:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve_gateway, engine, [listener], settings, ports)
                nursery.start_soon(serve_gateway, engine, [loopback], settings, ports)
        stopped.set()

    async with open_scripted_engine(root, limits) as engine, trio.open_nursery() as nursery:
        nursery.start_soon(serve, engine)
        yield World(engine, limits, listener, port, serving, stopped, events)
        serving.cancel()
