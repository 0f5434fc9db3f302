"""Streams that are read, stopped, cut and dropped, each against what passes say instead."""

from __future__ import annotations

from functools import partial

from pie_trio.testing.fused_guests import WAYS
from pie_trio.testing.scenarios.grounds import Deed, some_of
from pie_trio.testing.world import World


async def fused(world: World) -> None:
    """Every way that a stream can end, with samplers and prompts that the seed draws."""
    run, dice = partial(world.run, patience=60.0), world.dice

    def stream(way: str) -> Deed:
        count, some = dice.randint(1, 40), dice.randint(0, 20)
        return partial(run, "sim-fused", dice.randrange(20), count, way, some)

    await some_of(
        world,
        [
            *(stream(way) for way in (*WAYS, "cut", "drop")),
            partial(run, "sim-decode", 1, 7, 3),
            partial(run, "sim-hog", dice.randint(1, 8), dice.randint(10, 100)),
        ],
        5,
    )
