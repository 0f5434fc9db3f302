"""The scripted profile: six small guests whom one engine serves at once, without a connection."""

from __future__ import annotations

from functools import partial

from pie_trio.testing.scenarios.basic import at_once
from pie_trio.testing.world import World

TRIES = 2


async def scripted(world: World) -> None:
    """About thirty passes and twenty forgeries, when nothing goes wrong."""
    insist = partial(_insist, world)
    await at_once(
        partial(insist, "sim-profile-rows", 41, 3, 4),
        partial(insist, "sim-profile-rows", 48, 2, 3),
        partial(insist, "sim-profile-owner"),
        partial(insist, "sim-profile-reader"),
        partial(insist, "sim-profile-twins"),
        partial(insist, "sim-profile-intruder"),
    )


async def _insist(world: World, program: str, *arguments: object) -> None:
    """Again, when it was ended: by a worker that died, mostly."""
    for _ in range(TRIES):
        if await world.run(program, *arguments) is not None or world.is_stopping():
            return
