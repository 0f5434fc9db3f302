"""The swarm's scenario: a handful of what the other scenarios do, as the seed draws it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import trio

from pie_trio.testing.scenarios.basic import PATIENCE_SECONDS, attach_and_detach, converse
from pie_trio.testing.world import World

Deed = Callable[[], Awaitable[object]]


def _deeds(world: World) -> list[Deed]:
    run, dice = world.run, world.dice
    topic = f"topic {dice.randrange(3)}"
    return [
        partial(run, "sim-decode", dice.randrange(4), dice.randint(1, 9), dice.randint(1, 5)),
        partial(run, "sim-decode", dice.randrange(4), dice.randint(1, 9), dice.randint(1, 5)),
        partial(run, "sim-pipeline", dice.randrange(4), dice.randint(1, 6)),
        partial(run, "sim-branches", dice.randrange(4), dice.randint(1, 6)),
        partial(run, "sim-share", 1, dice.randrange(3)),
        partial(run, "sim-share", 1, dice.randrange(3), "release"),
        partial(run, "sim-masks", dice.randrange(4)),
        partial(run, "sim-embed"),
        partial(run, "sim-hog", dice.randint(1, 20), dice.randint(10, 600)),
        partial(run, "sim-forge"),
        partial(run, "sim-trap", dice.randrange(4)),
        partial(run, "sim-spin", dice.randint(1, 12)),
        partial(run, "sim-keys", dice.randint(1, 3)),
        partial(run, "sim-chatter", dice.randint(1, 20), dice.choice([10, 300])),
        partial(run, "sim-broadcast", topic, 2, "a", patience=PATIENCE_SECONDS),
        partial(run, "sim-listen", topic, 2, patience=PATIENCE_SECONDS),
        partial(converse, world, dice.randint(1, 3)),
        partial(attach_and_detach, world),
    ]


async def mixed(world: World) -> None:
    """Four to seven deeds, each begun at a moment of its own."""

    async def begin(after: float, deed: Deed) -> None:
        await trio.sleep(after)
        await deed()

    chosen = world.dice.sample(_deeds(world), world.dice.randint(4, 7))
    async with trio.open_nursery() as nursery:
        for deed in chosen:
            nursery.start_soon(begin, world.dice.choice([0, 0, 0, 0.01, 0.03, 0.1]), deed)
