"""Clients who check what they are told: strangers, neighbours, the deaf, the mute and the many.

What the server owes them and does not give is an `AssertionError`; a connection that dies ends a
deed quietly.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

import attrs
import trio

from pie_trio.client.errors import RemoteError, RequestRefused
from pie_trio.services.client_messages import (
    AttachProcess,
    LaunchProcess,
    LaunchProcesses,
    ListProcesses,
    Ping,
    Response,
    TerminateProcess,
)
from pie_trio.testing.raw_client import GONE, raw_client, upload_of
from pie_trio.testing.world import TERMINALS, World

PATIENCE_SECONDS = 600.0  # virtual: even deaf clients hear by then
BIG = 4000  # letters of a message that no buffer hides

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


async def uploads(world: World) -> None:
    """Two at once over one connection, chunk by chunk in turns."""
    async with raw_client(world, somebody(world)) as client:
        one = upload_of(
            client.next_number(), "up-a", b"async def main(args):\n    return 'a'\n" * 2
        )
        two = upload_of(
            client.next_number(), "up-b", b"async def main(args):\n    return 'b'\n" * 2
        )
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


async def piled_up(world: World) -> None:
    """An answer and what its instance says wait together behind what nobody has read yet."""
    async with raw_client(world, somebody(world)) as client:
        if await client.launch("sim-chatter", 40, BIG) is None:
            return
        await trio.sleep(0.05)
        launch = LaunchProcess(
            corr_id=client.next_number(),
            inferlet="sim-chatter",
            input='{"args": ["3", "20"]}',
            capture_outputs=True,
        )
        await client.send(launch)
        await trio.sleep(0.05)
        while launch.corr_id not in client.answered:
            answer = await client.hear()
        if isinstance(answer, Response) and answer.ok:
            client.known.add(answer.result)
            await client.read(answer.result)


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
            "piled-up": piled_up,
            "mute": mute,
            "at-once": at_once,
        }.items()
    }
)
