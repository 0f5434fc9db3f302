"""The reference scenarios of exhaustive cancellation: wherever an instance or its client can wait.

Each is small, so that every place in it can be tried, and has a deed for one kind of wait. They
live with everybody's death: whoever is cancelled, the others come to their end in bounded time.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio
import trio_websocket

from pie_trio.client.errors import RemoteError, RequestRefused, ServerGone
from pie_trio.services.client_messages import (
    AttachProcess,
    ClientMessage,
    LaunchProcess,
    LaunchProcesses,
    Ping,
    RunProcesses,
    TerminateProcess,
)
from pie_trio.services.client_protocol import encode
from pie_trio.testing.deeds import DEEDS
from pie_trio.testing.raw_client import MANIFEST, raw_client, upload_of
from pie_trio.testing.scenarios.basic import at_once
from pie_trio.testing.scenarios.doors import BIG, quietly
from pie_trio.testing.world import World

BUSY = """
import inferlet
from inferlet import kvs

async def main(args):
    for number in range(300):
        kvs.put("key", str(number))
    total = sum(range(60000))
    print(total)
    context = inferlet.Context(inferlet.get_model())
    context.fill("once upon a time")
    return [await context.decode_step() for _ in range(2)]
"""
HANDSHAKE_SECONDS = 20.0
OTHERS_SECONDS = 10.0  # until there is room for another client
# What is answered at once, refused at once, and not understood: no word behind it is heard.
LAST_WORDS = (
    encode(Ping(corr_id=99)),
    encode(TerminateProcess(corr_id=99, process_id="nobody")),
    b"\xc1",
)
CALLING_PROGRAMS = ("bench-latency",)
PYTHON_PROGRAMS = ("text-completion-py", "text-completion")


async def first_uses(world: World) -> None:
    """After the first worker died, everybody wants a model that has none for a moment."""
    await world.run("sim-decode", 1, 2, 2)
    await trio.sleep(0.02)
    await at_once(*(partial(world.run, "sim-first", deed) for deed in DEEDS))


async def crowds(world: World) -> None:
    """Full mailboxes, full inboxes."""
    await at_once(
        *(partial(world.run, "sim-crowd", deed) for deed in DEEDS),
    )


async def host_calls(world: World) -> None:
    """Polls, streams, texts, masks, topics, blobs."""
    await at_once(
        partial(world.run, "sim-polls"),
        partial(world.run, "sim-streams"),
        partial(world.run, "sim-texts"),
        partial(world.run, "sim-rows"),
        partial(world.run, "sim-shout"),
        partial(world.run, "sim-late", 300),
        partial(world.run, "bench-latency", "--count", 400),
        partial(world.run, "sim-dawdle"),
        partial(world.run, "sim-decode", 1, 3, 3),
    )


async def rewrites(world: World) -> None:
    """A page that others may read is written to when there is none for its copy."""
    await at_once(
        *(partial(world.run, "sim-hog", 1, moment) for moment in (300, 600)),
        partial(world.run, "sim-grasp"),
        partial(world.run, "sim-decode", 1, 2, 2),
    )


async def outputs(world: World) -> None:
    """Readers that are slow, gone, or get a file."""
    await at_once(
        partial(world.run, "sim-writes", 2),
        partial(_leave_and_return, world),
        partial(_quietly, world, _two_transfers),
        partial(_deaf_in_turn, world),
    )


async def _deaf_in_turn(world: World) -> None:
    await trio.sleep(OTHERS_SECONDS)
    for last in LAST_WORDS:
        await quietly(partial(_deaf, last=last))(world)


async def _deaf(world: World, last: bytes) -> None:
    """Reads nothing: files, much text and answers of every kind wait behind each other."""
    one = json.dumps({"args": ["1", "1", "1"]})
    async with raw_client(world, "deaf") as client:
        detached = LaunchProcess(corr_id=80, inferlet="sim-wait", input="{}", capture_outputs=False)
        identity = (await client.ask(detached)).result
        for _ in range(2):
            await client.launch("sim-hand-over", 300)
        await client.launch("sim-chatter", 40, BIG)
        await trio.sleep(0.5)
        asked: tuple[ClientMessage, ...] = (
            LaunchProcess(corr_id=90, inferlet="sim-decode", input=one, capture_outputs=True),
            LaunchProcesses(corr_id=91, inferlet="sim-decode", inputs=(one,), capture_outputs=True),
            RunProcesses(corr_id=92, inferlet="sim-decode", inputs=(one,)),
            AttachProcess(corr_id=93, process_id=identity),
            AttachProcess(corr_id=94, process_id="nobody"),
            *upload_of(95, "installed", b"async def main(args):\n    return 'x'\n"),
        )
        for request in asked:
            await client.send(request)
        await client.socket.send_message(last)
        with trio.move_on_after(3):
            await client.socket.ping()


async def _two_transfers(_world: World, client: Any) -> None:
    """Files of two instances want to come over one connection, which is asked for more."""
    both = await client.launch_many("sim-writes", [{"args": ["2", "600"]}] * 2)
    one = {"args": ["1", "1", "1"]}
    await at_once(
        *(instance.result for instance in both),
        partial(client.launch, "sim-decode", input=one),
        partial(client.launch_many, "sim-decode", [one]),
    )


async def _leave_and_return(world: World) -> None:
    launch = None
    try:
        async with world.connect() as client:
            instance = await world.launch(client, "sim-writes", 4)
            launch = world.launches[-1]
            launch.lost_events = True
            await instance.__anext__()
    except (ServerGone, RequestRefused, StopAsyncIteration, RemoteError):
        return
    await trio.sleep(1)
    await world.follow(launch)


async def requests(world: World) -> None:
    """Everything that a client may ask for, and some of what it may not."""
    await at_once(
        partial(_quietly, world, _install_and_run),
        partial(_quietly, world, _launch_many),
        partial(_quietly, world, _ask_for_what_is_not_there),
        partial(_knock, world, "/nowhere"),
        partial(_babble, world),
    )


async def _quietly(world: World, deed: Callable[[World, Any], Awaitable[None]]) -> None:
    try:
        async with world.connect() as client:
            await deed(world, client)
    except* (ServerGone, RequestRefused, RemoteError):
        world.reached["a request was refused or broke off"] += 1


async def _install_and_run(world: World, client: Any) -> None:
    manifest = MANIFEST.format(name="installed")
    await client.install(manifest, b"async def main(args):\n    return 'x'\n" * 4, overwrite=True)
    await client.check("installed", "1.0.0")
    await client.ping()
    await client.model_status()


async def _launch_many(_world: World, client: Any) -> None:
    one = {"args": ["1", "2", "2"]}
    for instance in await client.launch_many("sim-decode", [one, one]):
        await instance.result()
    await client.run_many("sim-decode", [one, one])


async def _ask_for_what_is_not_there(_world: World, client: Any) -> None:
    for deed in (
        partial(client.launch, "no such program"),
        partial(client.attach, "no such instance"),
        partial(client.terminate, "no such instance"),
        partial(client.launch_many, "no such program", [{}]),
        partial(client.query, "no such subject"),
    ):
        try:
            await deed()
        except RequestRefused:
            continue


async def _knock(world: World, path: str) -> None:
    """A client that is refused at the door."""
    try:
        with trio.move_on_after(HANDSHAKE_SECONDS):
            async with trio.open_nursery() as nursery:
                stream: Any = world.listener.connect()
                await trio_websocket.wrap_client_stream(nursery, stream, "localhost", path)
    except* (trio_websocket.HandshakeError, trio.BrokenResourceError, OSError):
        world.reached["a client was turned away"] += 1


async def _babble(world: World) -> None:
    """A client that speaks another language."""
    try:
        with trio.move_on_after(HANDSHAKE_SECONDS):
            async with trio.open_nursery() as nursery:
                stream: Any = world.listener.connect()
                socket = await trio_websocket.wrap_client_stream(nursery, stream, "localhost", "/")
                for frame in (b"\xc1", json.dumps({"type": "ping"}), b"\x81\xa1a\x01"):
                    await socket.send_message(frame)
                    await socket.get_message()
                await socket.aclose()
    except* (
        trio_websocket.HandshakeError,
        trio_websocket.ConnectionClosed,
        trio.BrokenResourceError,
        OSError,
    ):
        world.reached["a client that babbles was cut off"] += 1


async def python_programs(world: World) -> None:
    """Python in the interpreter component, installed by a client and run beside other guests."""
    try:
        async with world.connect() as client:
            await client.install(MANIFEST.format(name="busy"), BUSY.encode(), overwrite=True)
    except (ServerGone, RequestRefused):
        world.reached["a request was refused or broke off"] += 1
        return
    await at_once(
        partial(world.run, "busy"),
        partial(world.run, "text-completion", "--prompt", "a b", "--max-tokens", 2),
        partial(world.run, "sim-decode", 1, 4, 2),
    )
