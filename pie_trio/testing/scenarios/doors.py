"""Clients who check what they are told: strangers, neighbours, the deaf, the hasty and the many.

Most of them speak the protocol frame by frame, so that they see what our own client would hide: an
answer that comes twice, an event before the answer that explains it. What the server owes them and
does not give is an `AssertionError`; a connection that dies ends a deed quietly.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any

import attrs
import trio
import trio_websocket

from pie_trio.client.errors import RemoteError, RequestRefused, ServerGone
from pie_trio.services.chunks import content_hash
from pie_trio.services.client_messages import (
    AddProgram,
    AttachProcess,
    AuthIdentify,
    ClientMessage,
    LaunchProcess,
    LaunchProcesses,
    ListProcesses,
    Ping,
    ProcessEvent,
    Request,
    Response,
    ServerMessage,
    TerminateProcess,
)
from pie_trio.services.client_protocol import decode_from_server, encode
from pie_trio.testing.sim_net import SimStream
from pie_trio.testing.world import TERMINALS, World

PATIENCE_SECONDS = 600.0  # virtual: even deaf clients hear by then
BIG = 4000  # letters of a message that no buffer hides
CHUNK_BYTES = 40
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


Deed = Callable[[World], Awaitable[None]]


def quietly(deed: Deed) -> Deed:
    """A connection may die at any time; a server may not fall silent."""

    async def attempt(world: World) -> None:
        with trio.move_on_after(PATIENCE_SECONDS) as patience:
            try:
                await deed(world)
            except* GONE:
                world.reached["a door was shut"] += 1
            except* (RequestRefused, RemoteError):
                world.reached["a request was refused"] += 1
        assert not patience.cancelled_caught, "the server fell silent"

    return attempt


def somebody(world: World) -> str:
    return f"user {world.dice.randrange(10**9)}"


async def stranger(world: World) -> None:
    async with raw_client(world) as client:
        for message in (
            Ping(corr_id=1),
            ListProcesses(corr_id=2),
            TerminateProcess(corr_id=3, process_id="x"),
        ):
            answer = await client.ask(message)
            assert not answer.ok, "a stranger is served"
            assert "authenticated" in answer.result, "a stranger is not asked who he is"


async def neighbours(world: World) -> None:
    mine = somebody(world)
    async with raw_client(world, mine) as owner, raw_client(world, "x" + mine) as other:
        identity = await owner.launch("sim-wait")
        if identity is None:
            return
        rows = await other.listed()
        assert identity not in [row["id"] for row in rows], "a list shows what is another's"
        attach = AttachProcess(corr_id=other.next_number(), process_id=identity)
        assert not (await other.ask(attach)).ok, "somebody else may attach"
        end = TerminateProcess(corr_id=other.next_number(), process_id=identity)
        assert not (await other.ask(end)).ok, "somebody else may end it"


async def once(world: World) -> None:
    """Output and end come together, and each once."""
    async with raw_client(world, somebody(world)) as client:
        identity = await client.launch("sim-chatter", world.dice.randint(1, 4), 20)
        if identity is None:
            return
        await trio.sleep(world.dice.choice([0, 0.2]))
        await client.read(identity)
        client.known.discard(identity)
        ping = Ping(corr_id=client.next_number())
        assert (await client.ask(ping)).ok, "a ping is refused"
        await trio.sleep(0.1)
        assert (await client.ask(attrs.evolve(ping, corr_id=client.next_number()))).ok
        ends = [e for e in client.events if e.process_id == identity and e.event in TERMINALS]
        assert len(ends) == 1, "an end is told twice"


async def unknown(world: World) -> None:
    async with raw_client(world, somebody(world)) as client:
        assert await client.launch("no-such-program") is None, "a program came from nowhere"


def _chunks(number: int, name: str, body: bytes) -> Sequence[AddProgram]:
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


MANIFEST = """
[package]
name = "{name}"
version = "1.0.0"
description = "What a client installs"

[runtime]
language = "python"
artifact = "main.py"
"""


async def uploads(world: World) -> None:
    """Two at once over one connection, chunk by chunk in turns."""
    async with raw_client(world, somebody(world)) as client:
        one = _chunks(client.next_number(), "up-a", b"async def main(args):\n    return 'a'\n" * 2)
        two = _chunks(client.next_number(), "up-b", b"async def main(args):\n    return 'b'\n" * 2)
        for pair in zip(one, two, strict=True):
            for chunk in pair:
                await client.send(chunk)
        while len(client.answered) < 3:
            answer = await client.hear()
            if isinstance(answer, Response) and not answer.ok:
                assert "chunk" not in answer.result, f"uploads were mixed: {answer.result}"
                assert "mismatch" not in answer.result, f"uploads were mixed: {answer.result}"


async def some_of_many(world: World) -> None:
    """All or none."""
    async with raw_client(world, somebody(world)) as client:
        many = LaunchProcesses(
            corr_id=client.next_number(),
            inferlet="sim-wait",
            inputs=("{}", "{}", "no JSON"),
            capture_outputs=False,
        )
        assert not (await client.ask(many)).ok, "what cannot be launched was launched"
        await trio.sleep(2.0)
        running = [row for row in await client.listed() if row["status"] == "running"]
        assert not running, "some of many run on for nobody"


async def refused_often(world: World) -> None:
    async with raw_client(world, somebody(world)) as client:
        for _ in range(10):
            number = client.next_number()
            answer = await client.ask(AttachProcess(corr_id=number, process_id="nobody"))
            assert "under way" not in answer.result, "a refused request is never done"


async def gone_at_once(world: World) -> None:
    """Launches, and is gone before it could be told of it."""
    async with raw_client(world, somebody(world)) as client:
        await client.send(
            LaunchProcess(corr_id=9, inferlet="sim-wait", input="{}", capture_outputs=True)
        )
        for _ in range(world.dice.randrange(12)):
            await trio.lowlevel.checkpoint()


async def ended(world: World) -> None:
    async with raw_client(world, somebody(world)) as client:
        identity = await client.launch("sim-wait")
        if identity is None:
            return
        end = TerminateProcess(corr_id=client.next_number(), process_id=identity)
        await client.ask(end)
        await trio.sleep(5.0)
        states = [row["status"] for row in await client.listed() if row["id"] == identity]
        assert "running" not in states, "what was ended is still running"


async def deaf(world: World) -> None:
    """Somebody who reads nothing is cut off, and his instance goes on with another reader."""
    user = somebody(world)
    limits = world.engine.settings.limits
    async with raw_client(world, user) as client:
        identity = await client.launch("sim-chatter", 60, BIG)
        if identity is None:
            return
        await trio.sleep(2 * limits.client_stall_seconds + 10)
        async with raw_client(world, user) as other:
            other.known.add(identity)
            attach = AttachProcess(corr_id=other.next_number(), process_id=identity)
            answer = await other.ask(attach)
            assert "attached" not in answer.result or answer.ok, "who reads nothing stays attached"


async def returning(world: World) -> None:
    """Loses no more than what the network lost."""
    user = somebody(world)
    async with raw_client(world, user) as client:
        identity = await client.launch("sim-chatter", 60, BIG)
        if identity is None:
            return
        await trio.sleep(world.dice.choice([0.0, 0.05, 1.0]))
        in_transit = client.stream.into.bytes_max // BIG + 6
        client.stream.reset()
    await trio.sleep(0.5)
    async with raw_client(world, user) as again:
        again.known.add(identity)
        attach = AttachProcess(corr_id=again.next_number(), process_id=identity)
        if not (await again.ask(attach)).ok:
            return
        end = await again.read(identity)
        seen = {event.value.partition(" ")[0] for event in again.events}
        if end.event == "return":
            lost = 60 - len([number for number in range(60) if str(number) in seen])
            assert lost <= in_transit, f"{lost} messages were lost, {in_transit} were on their way"


async def ghost(world: World) -> None:
    """Goes while the answers to its launches wait behind what it does not read."""
    async with raw_client(world, somebody(world)) as client:
        await client.launch("sim-chatter", 80, BIG)
        for number in range(100, 104):
            await client.send(
                LaunchProcess(corr_id=number, inferlet="sim-wait", input="{}", capture_outputs=True)
            )
        await trio.sleep(1.0)


async def mute(world: World) -> None:
    """Half a handshake."""
    limits = world.engine.settings.limits
    stream = world.listener.connect()
    try:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        await trio.sleep(limits.handshake_seconds + limits.close_seconds + 5)
        cut = stream.into.is_ended or stream.into.is_broken
        assert cut, "a client that never finishes its handshake is kept"
    finally:
        stream.reset()


async def hasty(world: World) -> None:
    """Gives a launch up while it is under way, and stays."""
    user = somebody(world)
    async with world.connect(user) as client:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def give_up() -> None:
                    for _ in range(world.dice.randrange(25)):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()

                nursery.start_soon(give_up)
                await client.launch("sim-wait")
        await client.ping()
        await trio.sleep(5.0)
        await client.ping()
        if scope.cancelled_caught:
            running = [each for each in await client.list() if not each.is_finished]
            assert not running, "a launch that was given up runs on"


async def at_once(world: World) -> None:
    """A slow request and quick ones beside each other: each gets its own answer."""
    async with world.connect(somebody(world)) as client:

        async def slow() -> None:
            with_two = [{"args": ["1", "3", "3"]}, {"args": ["2", "3", "3"]}]
            try:
                values = await client.run_many("sim-decode", with_two)
            except RequestRefused:
                return
            assert len(values) == 2, "the values of another request"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow)
            for _ in range(3):
                status = await client.model_status()
                assert isinstance(status, dict), "the answer of another request"
                await client.ping()


DOOR_DEEDS: Mapping[str, Deed] = MappingProxyType(
    {
        name: quietly(deed)
        for name, deed in {
            "stranger": stranger,
            "neighbours": neighbours,
            "once": once,
            "unknown": unknown,
            "uploads": uploads,
            "some-of-many": some_of_many,
            "refused-often": refused_often,
            "gone-at-once": gone_at_once,
            "ended": ended,
            "deaf": deaf,
            "returning": returning,
            "ghost": ghost,
            "mute": mute,
            "hasty": hasty,
            "at-once": at_once,
        }.items()
    }
)
