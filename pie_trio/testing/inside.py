"""Users without a connection: they ask the engine itself, as a program that embeds it does.

For runs that are about passes and pages, at a fraction of the cost of gateway and client. All else
is as in any world: launches are written down, and whoever stops the engine ends them.
"""

from __future__ import annotations

import attrs
import trio

from pie_trio.errors import PieError
from pie_trio.testing.workshop import workshop
from pie_trio.testing.world import TRIES, Launch, World


@attrs.define(eq=False)
class InsideWorld(World):
    """A world without a door."""

    async def follow(self, launch: Launch, user: str = "local") -> None:
        record = workshop().script(launch.program)
        for attempt in range(TRIES):
            try:
                instance = await self.engine.launch(record, launch.arguments, user=user)
            except PieError as refusal:
                self.refusals.append(str(refusal))
                await trio.sleep(0.1 * 2**attempt)
                continue
            launch.id = instance.id
            reader = instance.outlet.attach()
            try:
                while events := await reader.next_events():
                    launch.events += events
            finally:
                reader.detach()
            return
