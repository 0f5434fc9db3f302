"""The process of a simulated worker: alive, dying, gone, and reaped, in this order.

Killing it is synchronous and cannot fail; it is gone a moment later, as a real one is. It lives
outside of the engine, so that no cancellation of the engine makes it vanish.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio


@attrs.frozen
class WorkerPace:
    """How long things last, in virtual seconds."""

    start_seconds: float = 0.01
    step_seconds: float = 0.01
    row_seconds: float = 0.0005
    death_seconds: float = 0.001  # from its first sign of dying to its being gone


@attrs.define(eq=False)
class SimProcess:
    """Implements `ProcessLike`."""

    pid: int
    pace: WorkerPace
    life: trio.CancelScope  # of the worker's tasks
    start_soon: Callable[..., None]  # outside of the worker
    how: str = ""
    is_dying: trio.Event = attrs.field(factory=trio.Event)
    is_gone: trio.Event = attrs.field(factory=trio.Event)
    is_closed: bool = False

    async def wait(self) -> None:
        await self.is_gone.wait()

    async def wait_dying(self) -> bool:
        await self.is_dying.wait()
        return True

    def kill(self) -> None:
        self.die("killed by signal 9")

    def epitaph(self) -> str:
        assert self.is_gone.is_set(), "only the dead have an epitaph"
        return f"its process {self.pid} was {self.how}"

    def close(self) -> None:
        assert self.is_gone.is_set() or self.how, "a process is left only when it was killed"
        self.is_closed = True

    def die(self, how: str) -> None:
        if not self.how:
            self.how = how
            self.is_dying.set()
            self.life.cancel()
            self.start_soon(self._vanish)

    async def _vanish(self) -> None:
        await trio.sleep(self.pace.death_seconds)
        self.is_gone.set()
