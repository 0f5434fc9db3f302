"""Task groups: branches that live and fail together.

No branch outlives its group's block. When one fails, or the block does, all the others are
cancelled, and the block ends with that error once they have ended. Pure: it needs an asyncio loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")


class TaskGroup:
    """Runs branches beside each other until all have ended.

    async with task_group() as group:
        answers = [group.start(branch.decode_step()) for branch in branches]
    tokens = [answer.result() for answer in answers]
    """

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()

    def start(self, branch: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begins a branch; its `result()` is there when the block has been left."""
        return self._group.create_task(branch)

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._group.__aexit__(kind, error, trace)
        except BaseExceptionGroup as failures:
            # One failure is raised as what it is: a group would hide it from `except`.
            if len(failures.exceptions) == 1:
                raise failures.exceptions[0] from None
            raise


def task_group() -> TaskGroup:
    """A block whose branches end with it."""
    return TaskGroup()
