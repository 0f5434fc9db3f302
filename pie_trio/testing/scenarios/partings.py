"""Connections that end in the middle of something, and clients who think better of it.

One after the other, each over connections of its own: who waits is told, what was not delivered is
there for the next reader, and nothing runs on for nobody. A connection that dies too early ends a
deed quietly.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import trio

from pie_trio.client import Client, RemoteInstance, open_client_on
from pie_trio.client.errors import RequestRefused, ServerGone
from pie_trio.services.client_messages import AttachProcess, LaunchProcess, SignalProcess
from pie_trio.testing.raw_client import raw_client
from pie_trio.testing.scenarios.doors import BIG, DOOR_DEEDS, Deed, quietly, somebody
from pie_trio.testing.world import World

PARTINGS_OF_A_SEED = 4
SETTLED_SECONDS = 1.0  # by then what was asked for has been launched
MESSAGES = 60
SMALL = 100  # letters
LAUNCHES = 6
PATIENCE_SECONDS = 10.0  # virtual: of whoever waits at a connection that has ended
LAUNCH_TURNS = 25  # about what a launch takes


async def partings(world: World) -> None:
    """Some of them, each to its end."""
    for deed in world.dice.sample(PARTINGS, PARTINGS_OF_A_SEED):
        await quietly(deed)(world)
        await trio.sleep(SETTLED_SECONDS)


async def returning(world: World) -> None:
    """Loses no more than what the network lost."""
    user = somebody(world)
    async with raw_client(world, user) as client:
        room = client.stream.into.bytes_max
        letters = min(BIG, max(SMALL, room // 16))  # much more of them than on the way
        identity = await client.launch("sim-tell", MESSAGES, letters)
        if identity is None:
            return
        await trio.sleep(world.dice.choice([0.01, 0.05, 1.0]))
        client.stream.reset()
    await trio.sleep(0.5)
    async with raw_client(world, user) as again:
        again.known.add(identity)
        attach = AttachProcess(corr_id=again.next_number(), process_id=identity)
        if not (await again.ask(attach)).ok:
            return
        await again.send(SignalProcess(process_id=identity, message="go on"))
        end = await again.read(identity)
        seen = {event.value.partition(" ")[0] for event in again.events}
        if end.event == "return":
            in_transit = room // letters + 6
            lost = MESSAGES - len(seen.intersection(map(str, range(MESSAGES))))
            assert lost <= in_transit, f"{lost} messages were lost, {in_transit} were on their way"


async def ghost(world: World) -> None:
    """Goes while the answers to its launches wait for room behind what it does not read."""
    letters = BIG + world.engine.settings.limits.outbox_bytes // MESSAGES
    chatter = json.dumps({"args": [str(MESSAGES), str(letters)]})
    async with raw_client(world, somebody(world)) as client:
        # What one of them may say is being written, another fills the outbox, the last one waits.
        for program, argument in (*[("sim-chatter", chatter)] * 3, *[("sim-wait", "{}")] * 4):
            launch = LaunchProcess(
                corr_id=client.next_number(),
                inferlet=program,
                input=argument,
                capture_outputs=True,
            )
            await client.send(launch)
            await trio.sleep(0.01)
        await trio.sleep(1.0)


async def gone_while_launching(world: World) -> None:
    """Connections that end while what they asked for is still being loaded."""
    for _ in range(LAUNCHES):
        await DOOR_DEEDS["gone-at-once"](world)


async def hasty(world: World) -> None:
    """Gives launches up while they are under way, and stays."""
    async with world.connect(somebody(world)) as client:
        wanted = [await _launched_in_time(world, client) for _ in range(LAUNCHES)]
        await client.ping()
        await trio.sleep(5.0)
        await client.ping()
        running = {each.id for each in await client.list() if not each.is_finished}
        assert running <= set(wanted), "a launch that was given up runs on"


async def _launched_in_time(world: World, client: Client) -> str | None:
    """The instance, if it was there before its caller lost patience."""
    turns = world.dice.randrange(LAUNCH_TURNS)
    launched: list[RemoteInstance] = []

    async def launch() -> None:
        with suppress(RequestRefused):
            launched.append(await client.launch("sim-wait"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(launch)
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    return launched[0].id if launched else None


async def cut_off(world: World) -> None:
    """Whoever waits for an answer when the connection ends is told that it has ended."""
    stream = world.listener.connect()
    limits = world.engine.settings.limits
    async with open_client_on(stream, user=somebody(world), limits=limits) as client:
        with trio.move_on_after(PATIENCE_SECONDS) as patience:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_until_gone, partial(client.run_many, "sim-wait", [{}, {}]))
                nursery.start_soon(_until_gone, partial(_launch_and_wait, client))
                await trio.sleep(world.dice.choice([0.001, 0.01, 0.1]))
                stream.reset()
        assert not patience.cancelled_caught, "somebody waits for the answer of a dead connection"


async def _until_gone(ask: Callable[[], Awaitable[object]]) -> None:
    with suppress(ServerGone, RequestRefused):
        await ask()


async def _launch_and_wait(client: Client) -> None:
    instance = await client.launch("sim-wait")
    await instance.result()


PARTINGS: tuple[Deed, ...] = (returning, ghost, gone_while_launching, hasty, cut_off)
