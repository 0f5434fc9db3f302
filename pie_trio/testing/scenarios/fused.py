"""Streams that are read, stopped, cut and dropped, each against what passes say instead."""

from __future__ import annotations

from functools import partial

from pie_trio.config import Limits
from pie_trio.testing.fused_guests import WAYS
from pie_trio.testing.scenarios.basic import at_once
from pie_trio.testing.scenarios.grounds import Deed, some_of
from pie_trio.testing.world import World

# Of `sim-fused`, by what a worker does of them: several steps by itself, or a look after each.
CARRIED_ON = (4, 5, 6, 11, 12, 13)
LOOKED_AT = (0, 1, 2, 3, 7, 8, 9, 10)
VOICES = 3
PART_TOKENS = Limits().decode_chunk_tokens


async def choirs(world: World) -> None:
    """Long streams that begin together, with nobody else about: whole ones, then broken ones."""
    run, dice = partial(world.run, patience=60.0), world.dice
    count = dice.randint(16, 32)
    await at_once(
        *(partial(run, "sim-fused", n, count, "whole") for n in dice.sample(CARRIED_ON, VOICES))
    )
    for way in dice.sample(("cut", "drop", "stop"), 2):
        numbers = dice.sample(dice.choice((CARRIED_ON, LOOKED_AT)), VOICES)
        some = dice.randint(3, count // 2)
        await at_once(*(partial(run, "sim-fused", n, count, way, some) for n in numbers))


async def refrains(world: World) -> None:
    """Streams so long that a worker tells them in parts, one after the other, some given up."""
    run, dice = partial(world.run, patience=60.0), world.dice
    for way in ("stop", "drop", "whole", "stop"):
        number, some = dice.choice(CARRIED_ON), dice.randint(PART_TOKENS, 2 * PART_TOKENS)
        await run("sim-fused", number, 3 * PART_TOKENS, way, some)


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
