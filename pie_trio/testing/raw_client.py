"""A client that speaks the protocol frame by frame, and sees what our own client would hide.

It owns one connection and ends without a goodbye. A request that is answered twice, or an event
before the answer that explains it, is an `AssertionError`: the server owes every client better.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
import trio_websocket

from pie_trio.client.errors import ServerGone
from pie_trio.services.chunks import content_hash
from pie_trio.services.client_messages import (
    AddProgram,
    AuthIdentify,
    ClientMessage,
    LaunchProcess,
    ListProcesses,
    ProcessEvent,
    Request,
    Response,
    ServerMessage,
)
from pie_trio.services.client_protocol import decode_from_server, encode
from pie_trio.testing.sim_net import SimStream
from pie_trio.testing.world import TERMINALS, World

CHUNK_BYTES = 40
MANIFEST = """
[package]
name = "{name}"
version = "1.0.0"
description = "What a client installs"

[runtime]
language = "python"
artifact = "main.py"
"""
GONE = (
    trio_websocket.HandshakeError,
    trio_websocket.ConnectionClosed,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    OSError,
    ServerGone,
)


@attrs.define(eq=False)
class RawClient:
    """Frames as they are, in both directions."""

    stream: SimStream
    socket: Any
    number: int = 0
    answered: set[int] = attrs.field(factory=set)
    known: set[str] = attrs.field(factory=set)  # instances that it was told of
    events: list[ProcessEvent] = attrs.field(factory=list)

    def next_number(self) -> int:
        self.number += 1
        return self.number

    async def send(self, message: ClientMessage) -> None:
        await self.socket.send_message(encode(message))

    async def hear(self) -> ServerMessage:
        message = decode_from_server(await self.socket.get_message())
        if isinstance(message, Response):
            assert message.corr_id not in self.answered, "a request is answered twice"
            self.answered.add(message.corr_id)
        elif isinstance(message, ProcessEvent):
            assert message.process_id in self.known, "an event comes before its answer"
            self.events.append(message)
        return message

    async def ask(self, message: Request) -> Response:
        await self.send(message)  # type: ignore[arg-type]
        while True:
            heard = await self.hear()
            if isinstance(heard, Response) and heard.corr_id == message.corr_id:
                return heard

    async def launch(self, program: str, *arguments: object) -> str | None:
        """The id of the instance, or none if it was refused."""
        message = LaunchProcess(
            corr_id=self.next_number(),
            inferlet=program,
            input=json.dumps({"args": [str(each) for each in arguments]}),
            capture_outputs=True,
        )
        await self.send(message)
        while True:
            heard = decode_from_server(await self.socket.get_message())
            if isinstance(heard, Response) and heard.corr_id == message.corr_id:
                if heard.ok:
                    self.known.add(heard.result)
                return heard.result if heard.ok else None
            assert not isinstance(heard, ProcessEvent) or heard.process_id in self.known, (
                "an event comes before its answer"
            )

    async def read(self, identity: str) -> ProcessEvent:
        """To its end."""
        while True:
            heard = await self.hear()
            is_its = isinstance(heard, ProcessEvent) and heard.process_id == identity
            if isinstance(heard, ProcessEvent) and is_its and heard.event in TERMINALS:
                return heard

    async def listed(self) -> list[dict[str, Any]]:
        answer = await self.ask(ListProcesses(corr_id=self.next_number()))
        assert answer.ok, "a list is refused"
        rows: list[dict[str, Any]] = json.loads(answer.result)
        return rows


@asynccontextmanager
async def raw_client(world: World, user: str = "") -> AsyncIterator[RawClient]:
    """Ends without a goodbye."""
    stream = world.listener.connect()
    async with trio.open_nursery() as nursery:
        wrapped: Any = stream
        socket: Any = None
        with trio.move_on_after(world.engine.settings.limits.handshake_seconds):
            socket = await trio_websocket.wrap_client_stream(nursery, wrapped, "localhost", "/")
        if socket is None:  # the library does not notice that it was turned away
            raise ServerGone("nobody shakes hands")
        client = RawClient(stream, socket)
        try:
            if user:
                number = client.next_number()
                await client.ask(AuthIdentify(corr_id=number, username=user))
            yield client
        finally:
            stream.reset()
        nursery.cancel_scope.cancel()


def upload_of(number: int, name: str, body: bytes) -> Sequence[AddProgram]:
    """A program of that body, in small chunks."""
    pieces = [body[i : i + CHUNK_BYTES] for i in range(0, len(body), CHUNK_BYTES)]
    return [
        AddProgram(
            corr_id=number,
            program_hash=content_hash(body),
            manifest=MANIFEST.format(name=name),
            force_overwrite=True,
            total_chunks=len(pieces),
            chunk_index=index,
            chunk_data=piece,
        )
        for index, piece in enumerate(pieces)
    ]
