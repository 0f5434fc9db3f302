"""The scripted profile: six small guests whom one engine serves at once, without a connection."""

from __future__ import annotations

from functools import partial

from pie_trio.testing.scenarios.basic import at_once
from pie_trio.testing.world import World


async def scripted(world: World) -> None:
    """Thirty passes and twenty forgeries, when nothing goes wrong; who is ended stays ended."""
    run = world.run
    await at_once(
        partial(run, "sim-profile-rows", 41, 3, 4),
        partial(run, "sim-profile-rows", 48, 2, 3),
        partial(run, "sim-profile-owner"),
        partial(run, "sim-profile-reader"),
        partial(run, "sim-profile-twins"),
        partial(run, "sim-profile-intruder"),
    )
