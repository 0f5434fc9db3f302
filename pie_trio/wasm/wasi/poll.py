"""`wasi:io/poll`: what a guest can wait for, and the waiting.

Any host object with `ready` and `wait` is a pollable. Waiting happens in the guest's own task, or
in tasks that end with the call; a cancelled wait leaves nothing behind. Nothing here may decide
that something is ready: only the pollable itself knows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import attrs
import trio

from pie_trio.errors import GuestFault


class Pollable(Protocol):
    """Something that a guest can wait for."""

    def ready(self) -> bool:
        """Whether waiting would end at once; changes nothing."""
        ...

    async def wait(self) -> None:
        """Return once it is ready; may be awaited by several at a time."""
        ...


@attrs.frozen(eq=False)
class Ready:
    """Always ready."""

    def ready(self) -> bool:
        return True

    async def wait(self) -> None:
        await trio.lowlevel.checkpoint()


@attrs.frozen(eq=False)
class EventPollable:
    """Ready once its event is set."""

    event: trio.Event = attrs.field(factory=trio.Event)

    def ready(self) -> bool:
        return self.event.is_set()

    async def wait(self) -> None:
        await self.event.wait()


@attrs.frozen(eq=False)
class Deadline:
    """Ready from a moment of Trio's clock on."""

    time: float

    def ready(self) -> bool:
        return trio.current_time() >= self.time

    async def wait(self) -> None:
        await trio.sleep_until(self.time)


async def wait_for_any(pollables: Sequence[Pollable]) -> list[int]:
    """The places of all that are ready, as soon as there is one; at most one task for each."""
    if len(pollables) == 1:
        while not pollables[0].ready():
            await pollables[0].wait()
        return [0]
    while True:
        ready = [place for place, pollable in enumerate(pollables) if pollable.ready()]
        if ready:
            return ready
        await _wait_for_first(pollables)


async def _wait_for_first(pollables: Sequence[Pollable]) -> None:
    """Clocks need no task: the earliest of them is a deadline of the whole wait."""
    earliest = min(
        (each.time for each in pollables if isinstance(each, Deadline)), default=math.inf
    )
    others = {id(each): each for each in pollables if not isinstance(each, Deadline)}
    with trio.move_on_at(earliest):
        if not others:
            await trio.sleep_forever()
        if len(others) == 1:
            (other,) = others.values()
            await other.wait()
            return
        async with trio.open_nursery() as nursery:

            async def wait_and_end(pollable: Pollable) -> None:
                await pollable.wait()
                nursery.cancel_scope.cancel()

            for other in others.values():
                nursery.start_soon(wait_and_end, other)


def _is_ready(_host: Any, pollable: Pollable) -> bool:
    return pollable.ready()


async def _block(host: Any, pollable: Pollable) -> None:
    await _wait(host, (pollable,))


async def _poll(host: Any, pollables: Sequence[Pollable]) -> list[int]:
    if not pollables:
        raise GuestFault("wasi:io/poll#poll: an empty list would wait for ever")
    return await _wait(host, pollables)


async def _wait(host: Any, pollables: Sequence[Pollable]) -> list[int]:
    """Waits while whoever asks can see for what."""
    host.wasi.waits_on(pollables)
    try:
        return await wait_for_any(pollables)
    finally:
        host.wasi.waits_on(())


POLL: Final[Mapping[str, Any]] = {
    "[method]pollable.ready": _is_ready,
    "[method]pollable.block": _block,
    "poll": _poll,
}
