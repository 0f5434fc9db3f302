"""Parents, children and other hosts: who is started by whom, and who dies with whom.

Small enough for every place in it to be cancelled at. Users end a parent or its child in the middle
of everything, as they may; whoever is ended takes its own along and nobody else.
"""

from __future__ import annotations

from functools import partial

import trio

from pie_trio.client.errors import RequestRefused, ServerGone
from pie_trio.testing.scenarios.basic import at_once
from pie_trio.testing.world import World


async def families(world: World) -> None:
    """Everybody at once."""
    run = partial(world.run, patience=120.0)
    await at_once(
        partial(run, "sim-parent"),
        partial(run, "sim-fetches", world.dice.randrange(30)),
        partial(_end_somebody, world, "sim-nest"),
        partial(_end_somebody, world, "sim-parent"),
        partial(run, "sim-decode", 1, 3, 2),
    )


async def _end_somebody(world: World, program: str) -> None:
    """A user who ends an instance of theirs, perhaps one that another has started."""
    try:
        async with world.connect() as client:
            instance = await world.launch(client, program)
            await trio.sleep(world.dice.choice((0.0, 0.01, 0.03, 0.1)))
            mine = [each.id for each in await client.list()]
            if mine:
                await client.terminate(world.dice.choice(mine))
            with trio.move_on_after(60.0):
                await world.read(instance)
    except (ServerGone, RequestRefused):
        world.reached["an end came too late"] += 1
