"""Scenarios of one subject each, over scripted guests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import trio

from pie_trio.client.errors import RequestRefused, ServerGone
from pie_trio.testing.raw_client import MANIFEST
from pie_trio.testing.world import World

PATIENCE_SECONDS = 20.0  # of a user who waits for what others may never do


async def at_once(*deeds: Callable[[], Awaitable[object]]) -> None:
    """All of them beside each other."""
    async with trio.open_nursery() as nursery:
        for deed in deeds:
            nursery.start_soon(deed)


async def decode_many(world: World) -> None:
    """Several guests whose passes share batches."""
    await at_once(
        *(partial(world.run, "sim-decode", n, 3 + n, 4) for n in range(4)),
        partial(world.run, "sim-pipeline", 5, 6),
    )


async def branches(world: World) -> None:
    """Copy on write: branches over a prefix that others read."""
    await at_once(
        partial(world.run, "sim-branches", 1, 6),
        partial(world.run, "sim-branches", 2, 5),
        partial(world.run, "sim-masks", 3),
        partial(world.run, "sim-embed"),
    )


async def sharing(world: World) -> None:
    """Exports that several import, extend and release."""
    await at_once(
        partial(world.run, "sim-share", 1, 1),
        partial(world.run, "sim-share", 1, 2, "release"),
        partial(world.run, "sim-share", 1, 3),
        partial(world.run, "sim-share", 2, 4, "release"),
    )


async def talking(world: World) -> None:
    """Topics, and a client that is answered."""
    topic = f"news {world.dice.randrange(1000)}"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(world.run, "sim-listen", topic, 3, patience=PATIENCE_SECONDS))
        nursery.start_soon(
            partial(world.run, "sim-broadcast", topic, 3, "a", patience=PATIENCE_SECONDS)
        )
        nursery.start_soon(partial(converse, world, 3))
        nursery.start_soon(partial(world.run, "sim-chatter", 20, 200))


async def converse(world: World, count: int) -> None:
    """One client, one instance, messages to and fro."""
    try:
        async with world.connect() as client:
            instance = await world.launch(client, "sim-echo", count)
            for number in range(count):
                await instance.send(f"message {number}")
            with trio.move_on_after(PATIENCE_SECONDS):  # a full inbox drops messages
                await world.read(instance)
    except (ServerGone, RequestRefused):
        world.reached["a conversation broke off"] += 1


async def keys(world: World) -> None:
    """Writers to one store."""
    await at_once(*(partial(world.run, "sim-keys", 2 + n) for n in range(3)))


async def storing(world: World) -> None:
    """Programs are installed and keys are kept, by several at once."""
    await at_once(
        partial(_install, world, "stored-a"),
        partial(_install, world, "stored-b"),
        partial(world.run, "sim-keys", 3),
        partial(world.run, "sim-decode", 1, 4, 3),
    )


async def _install(world: World, name: str) -> None:
    """What could not be stored is not there, not even in part."""
    try:
        async with world.connect() as client:
            await client.install(MANIFEST.format(name=name), f"# {name}".encode())
    except RequestRefused as refusal:
        if "cannot be stored" in str(refusal):
            world.reached["a program could not be stored"] += 1
            assert world.engine.programs.find(name) is None, f"a part of {name} is stored"
    except ServerGone:
        world.reached["a client lost its connection"] += 1


async def attach_and_detach(world: World) -> None:
    """A client leaves, its instance goes on, and another client reads the rest."""
    try:
        async with world.connect() as client:
            instance = await world.launch(client, "sim-chatter", 10, 50)
            await instance.__anext__()
            launch = world.launch_of(instance)
            launch.lost_events = True
    except (ServerGone, RequestRefused, StopAsyncIteration):
        return
    await world.follow(launch)


async def terminate(world: World) -> None:
    """Instances that are ended by their client in the middle of their work."""

    async def one(seconds: float, program: str, *arguments: object) -> None:
        try:
            async with world.connect() as client:
                instance = await world.launch(client, program, *arguments)
                await trio.sleep(seconds)
                await instance.terminate()
                await world.read(instance)
        except (ServerGone, RequestRefused):
            world.reached["a termination came too late"] += 1

    await at_once(
        partial(one, 0.02, "sim-decode", 1, 9, 6),
        partial(one, 0.03, "sim-branches", 2),
        partial(one, 0.01, "sim-wait"),
        partial(one, 0.05, "sim-pipeline", 3, 8),
        partial(world.run, "sim-decode", 4, 5, 5),
    )


async def pressure(world: World) -> None:
    """More pages are wanted than there are."""
    pages = world.engine.models["pretend"].facts.pages
    await at_once(
        partial(world.run, "sim-hog", pages // 2, 200),
        partial(world.run, "sim-hog", pages // 2, 300),
        partial(world.run, "sim-share", 7, 1),
        *(partial(world.run, "sim-decode", n, 9, 4) for n in range(4)),
    )


async def hostile(world: World) -> None:
    """Guests that break rules, beside guests that do not."""
    await at_once(
        partial(world.run, "sim-forge"),
        partial(world.run, "sim-trap", 3),
        partial(world.run, "sim-spin", 20),
        partial(world.run, "sim-decode", 1, 6, 5),
        partial(world.run, "sim-share", 2, 1),
    )


async def two_models(world: World) -> None:
    """Guests of two models: what befalls one worker is nothing to the other."""
    await at_once(*(partial(world.run, "sim-decode", n, 4, 4) for n in range(3)))
