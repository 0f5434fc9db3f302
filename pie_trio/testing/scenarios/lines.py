"""The last pages of a pool: who stands in line for them, gives up, falls, or is still writing them.

One situation after the other, with nobody else about, so that each comes about whatever the dice
say. They say who asks for how much, when faults strike, and in which order tasks run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import trio

from pie_trio.testing.world import World

MOMENT_SECONDS = 0.01  # enough for all that takes no time
SETTLED_SECONDS = 1.0  # by then nothing is on its way any more
SITUATIONS_OF_A_SEED = 3
ROUNDS = 2


async def last_pages(world: World) -> None:
    """Some of the situations, each to its end."""
    for situation in world.dice.sample(SITUATIONS, SITUATIONS_OF_A_SEED):
        await situation(world)
        await trio.sleep(SETTLED_SECONDS)


def _pages(world: World) -> int:
    return world.engine.models["pretend"].facts.pages


def _patience(world: World) -> float:
    return world.engine.settings.limits.page_wait_seconds


async def _in_a_line(*deeds: Callable[[], Awaitable[object]]) -> None:
    """Each comes a moment after the one before it, and so stands behind it."""
    async with trio.open_nursery() as nursery:
        for deed in deeds:
            nursery.start_soon(deed)
            await trio.sleep(MOMENT_SECONDS)


async def gives_up(world: World) -> None:
    """The first in the line asks for too much and gives up; who is behind it has room then."""
    run, pages, room = world.run, _pages(world), world.dice.randint(1, 3)
    until = trio.current_time() + 2 * _patience(world) + 1.0
    behind: list[str | None] = []

    async def ask_for_little() -> None:
        behind.append(await run("sim-ask", room))

    await _in_a_line(
        partial(run, "sim-keep", pages - room, until),
        partial(run, "sim-ask", pages),
        ask_for_little,
    )
    assert behind != ["refused"], "who asks for what is there was refused"


async def falls_writing(world: World) -> None:
    """The only holder falls while its pages are written: they are on their way to who waits."""
    run, pages = world.run, _pages(world)
    await _in_a_line(
        partial(run, "sim-last-words", pages, trio.current_time() + 5 * MOMENT_SECONDS),
        partial(run, "sim-ask", pages - world.dice.randint(0, 1)),
        partial(run, "sim-ask", 1),
    )


async def in_the_last_moment(world: World) -> None:
    """Pages come back in the very step in which those who wait for them lose their patience."""
    run, pages = world.run, _pages(world)
    for _ in range(ROUNDS):
        moment, share = trio.current_time() + 1.0, pages // 3
        until = moment + _patience(world)
        await _in_a_line(
            *(partial(run, "sim-keep", share, until) for _ in range(2)),
            partial(run, "sim-keep", pages - 2 * share, until),
            *(partial(run, "sim-ask", 1, moment) for _ in range(6)),
        )


async def falls_asking(world: World) -> None:
    """Guests fall with what they ask for on its way, and then others give pages back."""
    run, dice, pages = world.run, world.dice, _pages(world)
    until = trio.current_time() + 10 * MOMENT_SECONDS
    await _in_a_line(
        partial(run, "sim-keep", pages - 1, until),
        *(partial(run, "sim-grab", dice.randint(2, pages), dice.randrange(6)) for _ in range(4)),
        partial(run, "sim-ask", pages),
    )


SITUATIONS: tuple[Callable[[World], Awaitable[None]], ...] = (
    gives_up,
    falls_writing,
    in_the_last_moment,
    falls_asking,
)
