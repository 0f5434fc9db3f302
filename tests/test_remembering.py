"""Finished instances are remembered for a time, in a bounded number, and while somebody reads."""

from __future__ import annotations

from pathlib import Path

import trio

from pie_trio.actors.instance import Instance
from pie_trio.config import Limits
from tests.world import World, open_world


async def finished(world: World, count: int) -> list[Instance]:
    """One after the other, so that they end in this order."""
    instances = []
    for _ in range(count):
        instances.append(await world.launch("helloworld"))
        await instances[-1].ended.wait()
    return instances


async def test_the_oldest_of_too_many_finished_instances_are_forgotten(tmp_path: Path) -> None:
    async with open_world(tmp_path, limits=Limits(finished_max=2)) as world:
        instances = await finished(world, 4)
        assert len(world.engine.instances()) == 2
        assert world.engine.find(instances[0].id) is None


async def test_a_finished_instance_is_forgotten_after_its_time(tmp_path: Path) -> None:
    async with open_world(tmp_path, limits=Limits(finished_seconds=0.2)) as world:
        (instance,) = await finished(world, 1)
        assert world.engine.find(instance.id) is instance
        await trio.sleep(0.25)
        assert world.engine.find(instance.id) is None
        assert world.engine.instances() == []


async def test_what_somebody_reads_is_not_forgotten(tmp_path: Path) -> None:
    async with open_world(tmp_path, limits=Limits(finished_seconds=0.0, finished_max=1)) as world:
        instance = await world.launch("helloworld")
        reader = instance.outlet.attach()
        await instance.ended.wait()
        await finished(world, 2)
        assert world.engine.instances() == [instance]
        reader.detach()
        assert world.engine.instances() == []


async def test_instances_are_listed_in_the_order_of_their_launches(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        waiting = await world.launch("echo")  # until its client says something
        (done,) = await finished(world, 1)
        assert world.engine.instances() == [waiting, done]
        waiting.terminate()
