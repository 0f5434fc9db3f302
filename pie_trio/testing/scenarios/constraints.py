"""Guests under grammars beside others, over workers that are lost and taught anew."""

from __future__ import annotations

from functools import partial

from pie_trio.testing.scenarios.basic import at_once
from pie_trio.testing.scenarios.grounds import some_of
from pie_trio.testing.world import World


async def constraints(world: World) -> None:
    """The same grammars at the same time, streams that are dropped, and plain passes between."""
    run, dice = partial(world.run, patience=60.0), world.dice
    await some_of(
        world,
        [
            *(partial(run, "sim-constrained", number % 3) for number in range(4)),
            *(partial(run, "sim-constrained", number, "drop") for number in range(3)),
            partial(run, "sim-decode", 1, 4, 4),
            partial(run, "sim-trap", dice.randint(1, 4)),
        ],
        6,
    )
    await at_once(*(partial(run, "sim-constrained", number) for number in range(3)))
