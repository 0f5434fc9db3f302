"""Must hold: whenever an instance is killed, its pages are back before its death is seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest
import trio

from pie_trio.actors.instance import Instance
from pie_trio.messages import OutputEvent
from pie_trio.outlet import OutputBuffer
from tests.kill_sweep import AtNextSteps, AtStep
from tests.support.by_passes import write_program
from tests.world import World, open_world, read_all

PROMPT = ("--prompt", "What is the capital of France?", "--max-tokens", "12")


@contextmanager
def instrument(probe: AtStep | AtNextSteps) -> Iterator[None]:
    trio.lowlevel.add_instrument(probe)
    try:
        yield
    finally:
        trio.lowlevel.remove_instrument(probe)


async def kill_at(world: World, step: int, program: Path) -> tuple[bool, OutputEvent]:
    """Kills a fresh instance at its k-th step; whether it lived that long, and its end."""
    instance = await world.launch(program)
    probe = AtStep(f"instance {instance.owner.number}", step, instance.terminate)
    with instrument(probe):
        reader = instance.outlet.attach()
        events: list[OutputEvent] = []
        while fresh := await reader.next_events():
            events += fresh
            if fresh[-1].kind in ("return", "error"):
                books = world.books()  # at the very moment at which a client sees the death
                assert books.balanced
                assert books.owned == 0
        await instance.ended.answer()
    assert probe.failure is None
    terminals = [event for event in events if event.kind in ("return", "error")]
    assert terminals == events[-1:], "exactly one terminal event, and it comes last"
    return probe.acted, events[-1]


async def test_a_real_guest_killed_at_any_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    """Every k until the instance ends by itself; one engine, so a leak of one run shows later."""
    async with open_world(tmp_path) as world:
        program = write_program(tmp_path)
        await world.run(program)
        tasks, descriptors = count_tasks(), psutil.Process().num_fds()
        acted, step = True, 0
        while acted:
            step += 1
            acted, end = await kill_at(world, step, program)
            if acted:
                assert (end.kind, end.value) in (("error", "Signal"), ("return", end.value))
        assert step > 30, "the sweep reaches all of the guest's life"
        assert end.kind == "return"
        assert count_tasks() == tasks
        assert psutil.Process().num_fds() == descriptors
        assert not [i for i in world.engine.instances() if not i.is_finished]


@pytest.mark.parametrize("later", [1, 2, 3, 5])
async def test_a_second_cancellation_during_clean_up_leaves_nothing(
    tmp_path: Path, later: int
) -> None:
    """The whole engine is cancelled a few steps after the instance was."""
    for step in range(1, 40, 3):
        ends: list[OutputEvent] = []
        with trio.CancelScope() as everything:
            async with open_world(tmp_path) as world:
                instance = await world.launch("text-completion", *PROMPT)
                pool = world.model.generation
                assert pool is not None

                kill_both = partial(kill_twice, instance, everything, later)
                probe = AtStep(f"instance {instance.owner.number}", step, kill_both)
                with instrument(probe):
                    await read_all(instance)
                everything.cancel()
                await trio.lowlevel.checkpoint()
        ended = await instance.ended.answer()
        assert ended.error is None or ended.error_kind == "Terminated"
        ends += await remaining(instance.outlet)
        assert len([e for e in ends if e.kind in ("return", "error")]) == 1
        for pages in pool.manager.pools.values():
            assert pages.books().balanced
            assert pages.books().owned == 0


def kill_twice(instance: Instance, everything: trio.CancelScope, later: int) -> None:
    instance.terminate()
    trio.lowlevel.add_instrument(AtNextSteps(later, everything.cancel))


async def remaining(outlet: OutputBuffer) -> list[OutputEvent]:
    """What a buffer still shows to a new reader."""
    if outlet.is_attached:
        outlet._release()
    return await outlet.attach().next_events()


def count_tasks() -> int:
    root = trio.lowlevel.current_root_task()
    assert root is not None
    return sum(1 for _ in walk(root))


def walk(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    yield task
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from walk(child)
