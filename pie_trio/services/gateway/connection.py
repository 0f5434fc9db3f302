"""One connection from its first byte to its last: handshake, reading, writing, closing.

It owns the stream. Whatever happens, the stream is closed when `run` returns, and it returns: each
phase has its time. A stop from outside gives the client what ends meanwhile, then says goodbye,
within the closing time. What a client sends can end its own connection and nothing else.
"""

from __future__ import annotations

import math
from typing import Generic, TypeVar

import trio
import trio_websocket
import wsproto.utilities
from trio_websocket import ConnectionClosed, WebSocketConnection
from wsproto.connection import Connection as Framing
from wsproto.connection import ConnectionType
from wsproto.events import BytesMessage

from pie_trio.config import Limits
from pie_trio.ports import Ports
from pie_trio.services.gateway.engine_port import EngineLike, InstanceLike
from pie_trio.services.gateway.outbox import Outbox
from pie_trio.services.gateway.session import Session
from pie_trio.services.gateway.stream import PatientStream

I = TypeVar("I", bound=InstanceLike)  # noqa: E741

GOING_AWAY = 1001  # close codes of WebSocket
TOO_LARGE = 1009
PATHS = ("/", "/v1/ws")  # of the official clients 0.4 and 0.5
# What a broken or a hostile client makes the WebSocket library raise.
CONNECTION_FAULTS = (
    trio_websocket.ConnectionClosed,
    trio_websocket.HandshakeError,
    wsproto.utilities.ProtocolError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
)


class Connection(Generic[I]):
    """Run once; `stop` may be called at any time, from any task, and more than once."""

    def __init__(
        self, engine: EngineLike[I], stream: trio.abc.Stream, limits: Limits, ports: Ports
    ) -> None:
        self._engine = engine
        self._stream = PatientStream(stream, limits.client_stall_seconds)
        self._limits = limits
        self._ports = ports
        self._life = trio.CancelScope(shield=True)
        self._listening = trio.CancelScope()
        self._outbox = Outbox(limits.outbox_bytes)
        self._stopping = False
        self.reason = "closed by the client"
        self.ended = trio.Event()

    async def run(self) -> None:
        """Shielded from outside, because it ends by `stop`, which bounds the time it may take."""
        try:
            with self._life:
                await self._until_closed()
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self._stream)
            self.ended.set()

    def stop(self) -> None:
        if not self.ended.is_set():
            self._stopping = True
            self._life.deadline = trio.current_time() + self._limits.close_seconds
            self._listening.cancel()

    async def _until_closed(self) -> None:
        try:
            async with trio.open_nursery() as nursery:
                await self._converse(nursery)
                nursery.cancel_scope.cancel()
        except* CONNECTION_FAULTS:
            self.reason = "reads nothing" if self._stream.is_stalled else "connection lost"

    async def _converse(self, nursery: trio.Nursery) -> None:
        socket: WebSocketConnection | None = None
        with self._listening:
            socket = await self._shake_hands(nursery)
            if socket is None:
                return
            session = Session(self._engine, self._limits, self._outbox, nursery)
            nursery.start_soon(self._write, socket)
            await self._listen(socket, session)
        if socket is not None and self._stopping:
            self.reason = "the server stops"
            # Instances that are being ended have half of the closing time to do it.
            with trio.move_on_after(self._limits.close_seconds / 2):
                await session.deliver_endings()
            await self._outbox.wait_until_written()
            await socket.aclose(GOING_AWAY)

    async def _shake_hands(self, nursery: trio.Nursery) -> WebSocketConnection | None:
        """None: there is nobody to talk to."""
        with trio.move_on_after(self._limits.handshake_seconds):
            request = await trio_websocket.wrap_server_stream(
                nursery,
                self._stream,
                message_queue_size=1,
                max_message_size=self._limits.frame_bytes,
                receive_buffer_size=self._limits.upload_chunk_bytes,
            )
            refusal = _refusal(request)
            if refusal is None:
                return await request.accept()
            self.reason = refusal[1]
            await request.reject(refusal[0], body=refusal[1].encode())
            return None
        self.reason = "no handshake in time"
        return None

    async def _listen(self, socket: WebSocketConnection, session: Session[I]) -> None:
        while True:
            try:
                frame = await socket.get_message()
            except trio_websocket.ConnectionClosed as closed:
                if closed.reason is not None and closed.reason.code == TOO_LARGE:
                    self.reason = "sent a message that is too large"
                return
            self._ports.hit("gateway.listen")
            await session.hear(frame)

    async def _write(self, socket: WebSocketConnection) -> None:
        framing = Framing(ConnectionType.SERVER)  # what it makes of frames needs no look at others
        rests_until = -math.inf  # tokens that come within this moment share one write
        while True:
            await self._outbox.wait_until_filled()
            if trio.current_time() < rests_until:
                with trio.move_on_at(rests_until):
                    await self._outbox.wait_for_reply()
            parcels = self._outbox.take()
            self._ports.hit("gateway.write")
            if socket.closed is not None:
                raise ConnectionClosed(socket.closed)
            frames = [framing.send(BytesMessage(parcel.frame)) for parcel in parcels]
            await self._stream.send_all(b"".join(frames))
            self._outbox.written(parcels)
            if not any(parcel.is_reply for parcel in parcels):
                rests_until = trio.current_time() + self._limits.outbox_flush_seconds


def _refusal(request: trio_websocket.WebSocketRequest) -> tuple[int, str] | None:
    """A web page may not use a browser to reach what only local programs may."""
    if request.path.partition("?")[0] not in PATHS:
        return 404, "unknown path"
    if any(name.lower() == b"origin" for name, _ in request.headers):
        return 403, "browsers are not served without authentication"
    return None
