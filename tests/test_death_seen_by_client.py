"""Must hold: when a client reads the terminal event, the pages of the dead are back already."""

from __future__ import annotations

from pathlib import Path

import trio

from pie_trio.actors.instance import Instance
from pie_trio.client import open_client
from pie_trio.services.gateway import open_listeners, serve_gateway
from tests.kill_sweep import AtStep
from tests.test_death import count_tasks, instrument
from tests.world import World, open_world

ARGUMENTS = ["--prompt", "What is the capital of France?", "--max-tokens", "12"]


async def test_books_balance_when_a_client_sees_the_death_at_every_checkpoint(
    tmp_path: Path,
) -> None:
    async with open_world(tmp_path) as world, trio.open_nursery() as nursery:
        engine = world.engine
        (listener,) = await open_listeners("127.0.0.1", 0, engine.settings.limits)
        nursery.start_soon(serve_gateway, engine, [listener], engine.settings, engine.ports)
        url = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}"
        async with open_client(url) as client:
            tasks, number, was_killed = 0, 0, True
            while was_killed:
                probe = AtStep(f"instance {number}", number + 1, lambda: newest(world).terminate())
                with instrument(probe):
                    instance = await client.launch("text-completion", arguments=ARGUMENTS)
                    events = [event async for event in instance]
                books = world.books()
                assert books.balanced
                assert books.owned == 0
                assert [e.kind for e in events if e.kind in ("return", "error")] == [
                    events[-1].kind
                ]
                assert probe.failure is None
                was_killed = probe.acted
                number += 1
                await trio.testing.wait_all_tasks_blocked(0.01)
                tasks = tasks or count_tasks()
                assert count_tasks() == tasks
            assert events[-1].kind == "return"
            assert number > 5
        nursery.cancel_scope.cancel()


def newest(world: World) -> Instance:
    return world.engine.instances()[-1]
