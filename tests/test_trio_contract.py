"""The private names of Trio that we use still mean what we think they mean."""

from __future__ import annotations

import pytest
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


def test_the_private_names_that_decide_the_order_are_there_and_mean_what_we_think() -> None:
    """`pie_trio.testing.scheduler` stands on these: the generator, the switch, the run queue."""
    from trio._core import _run

    batches: list[list[str]] = []

    class Recorder:
        def random(self) -> float:
            raise AssertionError("with the switch on, no coin is thrown")

        def uniform(self, first: float, _last: float) -> float:
            return first

        def shuffle(self, batch: list[trio.lowlevel.Task]) -> None:
            batches.append([task.name for task in batch])
            kept = batch.pop(0)
            _run.GLOBAL_RUN_CONTEXT.runner.runq.extend(batch)
            batch[:] = [kept]

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(trio.lowlevel.checkpoint, name=name)

    before = _run._r, _run._ALLOW_DETERMINISTIC_SCHEDULING
    _run._r, _run._ALLOW_DETERMINISTIC_SCHEDULING = Recorder(), True  # type: ignore[assignment]
    try:
        trio.run(main)
    finally:
        _run._r, _run._ALLOW_DETERMINISTIC_SCHEDULING = before
    ours = [[name for name in batch if name in "abc"] for batch in batches]
    assert ["a", "b", "c"] in ours, "runnable tasks are sorted by age"
    assert ["b", "c"] in ours, "what goes back to the run queue is offered again"


def test_an_instrument_that_raises_is_silently_removed(caplog: pytest.LogCaptureFixture) -> None:
    """So a harness that stands on instruments must catch everything in them."""

    class Raises(trio.abc.Instrument):
        calls = 0

        def after_task_step(self, _task: trio.lowlevel.Task) -> None:
            self.calls += 1
            raise ValueError

    instrument = Raises()

    async def main() -> None:
        for _ in range(5):
            await trio.lowlevel.checkpoint()

    trio.run(main, instruments=[instrument])
    assert instrument.calls == 1
    assert "Instrument has been disabled" in caplog.text


def test_the_virtual_clock_is_the_public_one() -> None:
    from trio._core import MockClock

    assert MockClock is trio.testing.MockClock
