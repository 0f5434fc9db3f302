"""The one private name of Trio that production uses still means what we think it means."""

from __future__ import annotations

import trio
import trio.testing
from trio._core import wait_all_tasks_blocked


async def test_waiting_for_all_others_resumes_only_when_they_wait() -> None:
    assert trio.testing.wait_all_tasks_blocked is wait_all_tasks_blocked
    order: list[str] = []

    async def busy() -> None:
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        order.append("busy has finished")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(busy)
        await wait_all_tasks_blocked()
        order.append("idle")
    assert order == ["busy has finished", "idle"]
