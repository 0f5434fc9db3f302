"""Guests that nobody in the scenario has asked for: they trap, spin, hoard, forge handles.

They come in through the front door like all others, each at the moment that its fault names, and
are judged by the same rules. Cancelled with the scenario.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType

import trio

from pie_trio.testing.faults import Fault
from pie_trio.testing.world import World

MOMENT_SECONDS = 0.02  # from one passing of time to the next
PATIENCE_SECONDS = 20.0
PROGRAMS: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "guest.trap": ("sim-trap", 3),
        "guest.spin": ("sim-spin", 60),
        "guest.bomb": ("sim-bomb",),
        "guest.forge": ("sim-forge",),
        "memory.hog": ("sim-hog", 1000, 800),
    }
)


@asynccontextmanager
async def open_disturbances(world: World) -> AsyncIterator[None]:
    """Beside the block, until it ends."""
    async with trio.open_nursery() as nursery:
        for fault in world.plan.faults:
            if fault.point in PROGRAMS:
                nursery.start_soon(_disturb, world, fault)
        yield
        nursery.cancel_scope.cancel()


async def _disturb(world: World, fault: Fault) -> None:
    await trio.sleep(fault.at * MOMENT_SECONDS)
    world.plan.strike(fault)
    program, *arguments = PROGRAMS[fault.point]
    await world.run(str(program), *arguments, patience=PATIENCE_SECONDS)
