"""Killed at every checkpoint: guests that share pages, talk to each other, and wait for pages.

One engine a sweep, so that a leak of one run shows in the next; the books are read at the very
moment at which a client could see the death.
"""

from __future__ import annotations

from pathlib import Path

import trio

from pie_trio.actors.instance import Instance
from pie_trio.config import Limits
from pie_trio.messages import OutputEvent, ResourceKind
from pie_trio.services.page_pool import Books
from pie_trio.testing.inline_worker import WorkerScript
from tests.kill_sweep import AtStep
from tests.scripted import KV, open_scripted
from tests.support.by_passes import write_program
from tests.test_death import count_tasks, instrument
from tests.world import World, open_world, read_all

SHARING = """
import asyncio
import inferlet

async def main(args):
    with inferlet.subscribe("sweep") as topic:
        context = inferlet.Context(inferlet.get_model())
        context.fill("sixteen tokens and a few more that fill a page")
        if not await context.import_prefix("sweep"):
            await context.export_prefix("sweep")
        branches = [context.fork() for _ in range(2)]
        for number, branch in enumerate(branches):
            branch.fill(f" branch {number}")
        inferlet.broadcast("sweep", "hello")
        for _ in range(12):
            tokens = await asyncio.gather(*(branch.decode_step() for branch in branches))
        heard = await topic.get()
        await context.release_prefix("sweep")
        return [heard, *tokens]
"""


class Sweep:
    """Kills at the k-th step of an instance's tasks and keeps what was seen at the end."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.books: Books | None = None

    async def kill_at(self, step: int, program: str | Path, *arguments: str) -> tuple[bool, str]:
        instance = await self.world.launch(program, *arguments)
        probe = AtStep(f"instance {instance.owner.number}", step, instance.terminate)
        with instrument(probe):
            events = await self._read(instance)
        assert probe.failure is None
        terminals = [event for event in events if event.kind in ("return", "error")]
        assert terminals == events[-1:], "exactly one terminal event, and it comes last"
        return probe.acted, f"{events[-1].kind} {events[-1].value}"

    async def _read(self, instance: Instance) -> list[OutputEvent]:
        reader = instance.outlet.attach()
        events: list[OutputEvent] = []
        while fresh := await reader.next_events():
            events += fresh
            if fresh[-1].kind in ("return", "error"):
                self.books = self.world.books()
        return events


async def test_a_guest_that_forks_exports_imports_and_talks_leaves_nothing(tmp_path: Path) -> None:
    """What it exported stays, by its nature, and only that; steps far apart are enough late on."""
    program = tmp_path / "sharing.py"
    program.write_text(SHARING)
    async with open_world(tmp_path / "home", pages=64) as world:
        sweep = Sweep(world)
        whole = await world.run(program)
        assert whole.error is None, whole.error
        await trio.testing.wait_all_tasks_blocked()
        tasks = count_tasks()
        acted, step, end = True, 0, ""
        while acted:
            step += 1 if step < 60 else 7
            acted, end = await sweep.kill_at(step, program)
            books = sweep.books
            assert books is not None
            assert books.balanced
            assert books.owned == 0
            exports = sum(
                len(export.pages)
                for export in world.model.generation.manager.pools[KV].all_exports()  # type: ignore[union-attr]
            )
            assert books.exported == exports
            assert world.books(ResourceKind.EMBEDDING).owned == 0
            assert acted is False or end == "error Signal" or end.startswith("return")
        assert end.startswith("return")
        assert step > 50, "the sweep reaches all of the guest's life"
        await trio.testing.wait_all_tasks_blocked()
        assert count_tasks() == tasks


async def test_an_instance_killed_while_it_waits_for_pages_leaves_the_line(tmp_path: Path) -> None:
    """At every step, some of them in the wait; who waits behind it gets its turn."""
    limits = Limits(page_wait_seconds=10.0)
    prompt = ("--prompt", "What is the capital of France?", "--max-tokens", "3")
    async with open_world(tmp_path, pages=12, limits=limits) as world:
        await world.run("text-completion", *prompt)
        acted, step, waited = True, 0, 0
        while acted:
            step += 1
            async with open_scripted(world, 100_000 + step) as greedy:
                pages = await greedy.queue.allocate(KV, 12)
                instance = await world.launch("text-completion", *prompt)
                probe = AtStep(f"instance {instance.owner.number}", step, instance.terminate)
                with instrument(probe):
                    await trio.testing.wait_all_tasks_blocked()
                    generation = world.model.generation
                    assert generation is not None
                    waited += bool(generation.manager._waiters)
                    await greedy.queue.deallocate(KV, pages)
                    await read_all(instance)
                assert world.books().owned == 0
                assert not generation.manager._waiters
                assert (await instance.ended.answer()).error in (None, "Signal")
                acted = probe.acted
        assert waited > 3


async def test_the_worker_may_die_at_any_step_of_an_instance(tmp_path: Path) -> None:
    """The instance ends by name, or in time; the next generation starts with all its pages."""
    program = write_program(tmp_path)
    limits = Limits(worker_restart_backoff_seconds=0.0, worker_restarts_max=10_000)
    script = WorkerScript(step_seconds=0.001)
    async with open_world(tmp_path, limits=limits, script=script) as world:
        await world.run(program)
        acted, step, lost = True, 0, 0
        while acted:
            step += 1
            await world.model.wait_ready()
            old = world.model.generation
            assert old is not None
            instance = await world.launch(program)
            probe = AtStep(f"instance {instance.owner.number}", step, world.links[-1].die)
            with instrument(probe):
                await read_all(instance)
            assert probe.failure is None
            end = await instance.ended.answer()
            assert end.error_kind in (None, "WorkerLost")
            lost += end.error_kind == "WorkerLost"
            for pool in old.manager.pools.values():
                books = pool.books()
                assert books.balanced
                assert books.owned == 0
            acted = probe.acted
            if acted:
                await trio.testing.wait_all_tasks_blocked()
                assert not any(pool.books().pinned for pool in old.manager.pools.values())
        assert lost > 10


STREAMING = """
import asyncio
import inferlet

async def main(args):
    trunk = inferlet.Context(inferlet.get_model())
    trunk.fill("sixteen tokens and a few more that fill a page")
    await trunk.flush()
    branches = [trunk.fork() for _ in range(2)]
    texts = await asyncio.gather(*(branch.generate(20).collect() for branch in branches))
    async for _ in trunk.generate(40):
        break
    return [*texts, await trunk.decode_step()]
"""


async def test_a_guest_with_streams_and_copies_leaves_nothing(tmp_path: Path) -> None:
    """Killed in the wait for a chunk, for its turn behind a stream, for a copy; in between, too."""
    program = tmp_path / "streaming.py"
    program.write_text(STREAMING)
    script = WorkerScript(step_seconds=0.0005)
    async with open_world(tmp_path / "home", pages=32, script=script) as world:
        sweep = Sweep(world)
        whole = await world.run(program)
        assert whole.error is None, whole.error
        await trio.testing.wait_all_tasks_blocked()
        tasks = count_tasks()
        acted, step, end = True, 0, ""
        while acted:
            step += 1 if step < 60 else 5
            acted, end = await sweep.kill_at(step, program)
            assert sweep.books is not None
            assert sweep.books.balanced
            assert sweep.books.owned == 0
        assert end.startswith("return")
        assert step > 60, "the sweep reaches all of the guest's life"
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not world.books().pinned
        assert count_tasks() == tasks
