"""Where defects of one area are hunted: the seed draws who does what, and each deed checks itself.

Dense on purpose: a run has many chances to go wrong in its area and few elsewhere. Every scenario
here is a swarm like `mixed`; none of them is a plain test.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import trio

from pie_trio.testing.scenarios.basic import at_once, converse
from pie_trio.testing.scenarios.doors import DOOR_DEEDS
from pie_trio.testing.world import World

Deed = Callable[[], Awaitable[object]]
STARTS = (0.0, 0.0, 0.0, 0.005, 0.01, 0.03, 0.1)


async def some_of(world: World, deeds: Sequence[Deed], count: int) -> None:
    """So many of them, each begun at a moment of its own."""

    async def begin(after: float, deed: Deed) -> None:
        await trio.sleep(after)
        await deed()

    async with trio.open_nursery() as nursery:
        for deed in world.dice.sample(list(deeds), min(count, len(deeds))):
            nursery.start_soon(begin, world.dice.choice(STARTS), deed)


async def page_traffic(world: World) -> None:
    """Pages are short, wanted, shared, given back late, and asked for by those who die."""
    run, dice = partial(world.run, patience=60.0), world.dice
    pages = world.engine.models["pretend"].facts.pages
    await some_of(
        world,
        [
            *(partial(run, "sim-throng", dice.randint(2, 8), dice.randrange(20)) for _ in range(3)),
            partial(run, "sim-throng", 1, 0, max(1, pages // 2)),
            partial(run, "sim-hog", pages, dice.randint(10, 200)),
            partial(run, "sim-deadline"),
            partial(run, "sim-throng", 1, 0, 2),
            *(partial(run, "sim-decode", n, 5, 3) for n in range(3)),
            partial(run, "sim-early"),
            partial(run, "sim-early"),
            partial(run, "sim-share", 1, 1),
            partial(run, "sim-share", 1, 2, "release"),
            partial(run, "sim-unwritten"),
            partial(run, "sim-foreign"),
            partial(run, "sim-double"),
            partial(run, "sim-trap", 3),
        ],
        8,
    )


async def pass_traffic(world: World) -> None:
    """Passes in every order, cut, copied, failed, branched."""
    run = partial(world.run, patience=60.0)
    names = ("order", "branch", "forks", "copies", "rewrite", "chunks", "failures", "unwritten")
    await some_of(
        world,
        [
            *(partial(run, f"sim-{name}") for name in names),
            partial(run, "sim-order"),
            partial(run, "sim-failures", "without"),
            partial(run, "sim-failures", "without"),
            partial(run, "sim-decode", 1, 7, 3),
            partial(run, "sim-trap", 4),
            partial(run, "sim-pipeline", 1, 6),
        ],
        6,
    )


async def batch_mates(world: World) -> None:
    """Passes that share a batch or must not: of guests who fall meanwhile, and of some who copy."""
    run, dice = partial(world.run, patience=60.0), world.dice
    for _ in range(3):
        await at_once(
            *(partial(run, "sim-decode", n, 5, 3) for n in range(3)),
            *(partial(run, "sim-trap", dice.randint(1, 3)) for _ in range(2)),
            *(partial(run, "sim-copies") for _ in range(2)),
        )


async def lives(world: World) -> None:
    """Workers and instances that come and go while others work."""
    run = partial(world.run, patience=60.0)
    await some_of(
        world,
        [
            partial(run, "sim-landmark", "a"),
            partial(run, "sim-landmark", "b"),
            partial(run, "sim-lookup", "a"),
            *(partial(run, "sim-decode", n, 4, 4) for n in range(3)),
            *(partial(run, "sim-failures") for _ in range(2)),
            partial(run, "sim-wait"),
            partial(run, "sim-wait"),
            partial(run, "sim-trap", 2),
            partial(DOOR_DEEDS["gone-at-once"], world),
            partial(DOOR_DEEDS["gone-at-once"], world),
            partial(DOOR_DEEDS["ended"], world),
            partial(_stop_soon, world),
        ],
        7,
    )
    await run("sim-lookup", "a")
    await run("sim-decode", 1, 3, 2)


async def _stop_soon(world: World) -> None:
    """The server stops while others are at work."""
    await trio.sleep(0.05)
    if world.dice.random() < 0.5:
        world.stop()


async def links(world: World) -> None:
    """One batch after the other over a bad link to a worker that fails."""
    run = partial(world.run, patience=60.0)

    async def steady(number: int) -> None:
        for turn in range(3):
            await run("sim-decode", number, 3 + turn, 3)

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(steady, number)
        nursery.start_soon(partial(run, "sim-pipeline", 4, 6))
        await trio.sleep(world.dice.choice([1.0, 8.0, 20.0]))
        await run("sim-decode", 7, 3, 3)


async def front_door(world: World) -> None:
    """Clients of all kinds, each of whom checks what it is told."""
    await some_of(
        world,
        [
            *(partial(deed, world) for deed in DOOR_DEEDS.values()),
            partial(DOOR_DEEDS["refused-often"], world),
            partial(DOOR_DEEDS["refused-often"], world),
            partial(converse, world, 2),
            partial(world.run, "sim-chatter", 10, 100, patience=60.0),
        ],
        7,
    )


async def airlock(world: World) -> None:
    """Real guests and scripted ones that wait, talk, and are killed while they do."""
    run, dice = partial(world.run, patience=60.0), world.dice
    topic = f"topic {dice.randrange(2)}"
    await some_of(
        world,
        [
            partial(run, "text-completion", "--prompt", "once upon", "--max-tokens", 3),
            partial(run, "echo", "--text", "hello", "--delay", dice.randrange(30)),
            partial(run, "echo"),
            partial(converse, world, 2),
            partial(run, "sim-first-of"),
            partial(run, "sim-listen", topic, 2),
            partial(run, "sim-listen", topic, 3),
            partial(run, "sim-broadcast", topic, 3, "a"),
            partial(run, "sim-broadcast", topic, 3, "b"),
            partial(run, "kvs"),
            partial(run, "sim-spin", 5),
        ],
        6,
    )
