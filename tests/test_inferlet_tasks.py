"""Task groups of the kit, on the kit's own loop: branches live and fail together."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.kit import kit
from tests.test_inferlet_loop import run, wait

task_group = kit("tasks").task_group


async def fail(after: float, error: Exception) -> None:
    await wait(after)
    raise error


def test_a_group_waits_for_all_its_branches() -> None:
    async def main() -> list[float]:
        async with task_group() as group:
            branches = [group.start(wait(moment)) for moment in (3.0, 1.0, 2.0)]
        return [branch.result() for branch in branches]

    assert run(main()) == [3.0, 1.0, 2.0]


def test_one_branch_that_fails_cancels_its_siblings_and_is_raised_as_it_is() -> None:
    ends: list[str] = []

    async def sibling() -> None:
        try:
            await wait(99.0)
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    async def main() -> None:
        async with task_group() as group:
            group.start(sibling())
            group.start(fail(1.0, KeyError("one")))
            group.start(sibling())
        ends.append("never")

    with pytest.raises(KeyError, match="one"):
        run(main())
    assert ends == ["cancelled", "cancelled"]


def test_a_block_that_fails_cancels_its_branches() -> None:
    branches: list[Any] = []

    async def main() -> None:
        async with task_group() as group:
            branches.append(group.start(wait(99.0)))
            await wait(1.0)
            raise ValueError("the block")

    with pytest.raises(ValueError, match="the block"):
        run(main())
    assert branches[0].cancelled()


def test_several_failures_are_told_together() -> None:
    async def main() -> None:
        async with task_group() as group:
            group.start(fail(1.0, KeyError("one")))
            group.start(fail(1.0, IndexError("two")))

    with pytest.raises(ExceptionGroup) as told:
        run(main())
    assert sorted(type(each).__name__ for each in told.value.exceptions) == [
        "IndexError",
        "KeyError",
    ]


def test_a_branch_may_gather_and_start_others() -> None:
    async def main() -> list[float]:
        found: list[float] = []

        async def branch(group: Any) -> None:
            found.extend(await asyncio.gather(wait(1.0), wait(2.0)))
            group.start(later())

        async def later() -> None:
            found.append(await wait(5.0))

        async with task_group() as group:
            group.start(branch(group))
        return found

    assert run(main()) == [1.0, 2.0, 5.0]


def test_a_group_whose_program_is_cancelled_leaves_no_branch() -> None:
    branches: list[Any] = []

    async def part() -> None:
        async with task_group() as group:
            branches.append(group.start(wait(99.0)))

    async def main() -> bool:
        task = asyncio.create_task(part())
        await wait(1.0)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert run(main())
    assert branches[0].cancelled()
