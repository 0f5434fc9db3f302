"""Real components in their fibers, cut into slices by counted instructions."""

from __future__ import annotations

from functools import partial

from pie_trio.testing.scenarios.basic import at_once, converse
from pie_trio.testing.world import World

PROGRAMS = ("text-completion", "echo", "helloworld", "kvs")


async def real_programs(world: World) -> None:
    """Shipped programs beside a scripted one."""
    dice = world.dice
    await at_once(
        partial(world.run, "text-completion", "--prompt", "once upon", "--max-tokens", 4),
        partial(
            world.run, "text-completion", "--prompt", f"a {dice.randrange(3)}", "--max-tokens", 2
        ),
        partial(world.run, "echo", "--text", "hello", "--delay", dice.randrange(30)),
        partial(world.run, "kvs"),
        partial(world.run, "sim-decode", 1, 5, 3),
        partial(converse, world, 2),
    )
