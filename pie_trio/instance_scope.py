"""What lives and dies with one instance: its leases, its queues' loops, its ordinals.

A lease is taken when a model is first really used, and given back when the instance's leases
close. Whether the guest is awake is told from here to the models that it uses.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

import attrs
import trio

from pie_trio.backlog import Backlog
from pie_trio.config import Limits
from pie_trio.messages import Owner
from pie_trio.ports import Ports
from pie_trio.served_model import Residence, Resident, ServedModel


@attrs.define(eq=False)
class InstanceScope:
    """What lives and dies with one instance: its leases, its queues' loops, its ordinals."""

    resident: Resident
    leases: AsyncExitStack
    queues: trio.Nursery
    limits: Limits
    ports: Ports
    backlog: Backlog = attrs.field(init=False)
    residences: dict[str, Residence] = attrs.field(factory=dict)
    queues_opened: int = 0

    def __attrs_post_init__(self) -> None:
        self.backlog = Backlog(self.limits)

    @property
    def owner(self) -> Owner:
        return self.resident.owner

    async def residence(self, model: ServedModel) -> Residence:
        found = self.residences.get(model.name)
        if found is None:
            found = await self.leases.enter_async_context(model.reside(self.resident))
            self.residences[model.name] = found
        return found

    def parked(self) -> None:
        """The guest waits: for batches that gather, and for those who wait for its pages."""
        for residence in self.residences.values():
            residence.loop.gathering.parked(self.owner.number)
            residence.manager.reconsider()

    def woke(self) -> None:
        for residence in self.residences.values():
            residence.loop.gathering.woke(self.owner.number)

    def used_slice(self) -> None:
        """The guest computes: batches do not wait for it for long."""
        for residence in self.residences.values():
            residence.loop.gathering.used_slice(self.owner.number)
