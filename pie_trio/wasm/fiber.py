"""One wasm call, driven by one Trio task.

The task polls the fiber. When the guest waits in a host call, the task itself awaits the rest of
the host's coroutine, so cancellation, time-outs and exceptions reach it like any other Trio code;
when the guest's slice is over, the task queues up behind the other busy guests. However the task
leaves, the call is deleted first, which unwinds the fiber without running guest code; nothing here
awaits while cleaning up. A fiber is driven by one task at a time, and never again after a failure.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from time import perf_counter
from typing import Any, Final, TypeVar, cast

import attrs
import trio

# Public only in `trio.testing`, which imports pytest; pinned with Trio, guarded by a test.
from trio._core import wait_all_tasks_blocked  # type: ignore[attr-defined]

from pie_trio.wasm import abi
from pie_trio.wasm.border import Border, PendingCall, always
from pie_trio.wasm.ticker import Slicer

T = TypeVar("T")
# A guest that mostly waits may run the moment it wakes, as long as it takes no more than this
# share of the time, and so many slices in a row; beyond it, it queues up with the busy ones.
WAKING_SHARE: Final = 0.25
WAKING_SLICES: Final = 2
# A guest that computes without end goes on when everybody else waits, but at the latest then.
STANDING_BACK_SECONDS: Final = 0.005
READY_CALLS_MAX: Final = 256  # host calls without a wait, before counted slices end


@attrs.define(eq=False)
class Turns:
    """Lets one busy guest run between two looks of the event loop at everything else."""

    ticker: Slicer | None
    queue: trio.StrictFIFOLock = attrs.field(factory=trio.StrictFIFOLock)


@attrs.define(eq=False)
class Fiber:
    """The driver of one guest's calls."""

    border: Border
    turns: Turns
    on_park: Callable[[], None]
    on_wake: Callable[[], None]
    on_slice: Callable[[], None]  # the guest has used up a slice and would go on computing
    _driven: bool = False
    _has_turn: bool = False
    _slice_began: float = 0.0
    _ready_calls: int = 0
    _credit: float = 0.0

    async def drive(self, future: int) -> None:
        """Run a call to its end. Cancelled or failed: the call is gone, the guest is dead."""
        assert not self._driven, "a guest runs one call at a time"
        self._driven = True
        self.border.may_go_on = self._may_go_on
        self._begin_slice()
        try:
            while not self._advance(future):
                call = self.border.pending
                if call is None:
                    self.on_slice()
                    await self._next_turn()
                else:
                    self.border.pending = None
                    value = await self._attend(call)
                    call.answer(self.border, call.place, value)
                    self.border.ready[0] = b"\1"
        finally:
            self._stop(future)

    @trio.lowlevel.enable_ki_protection
    def _advance(self, future: int) -> bool:
        """Let the guest run until it ends, waits, or its slice is over.

        Ctrl-C waits outside: inside, it could strike between wasmtime and a callback's first line.
        """
        ticker = self.turns.ticker
        if ticker is None:
            done: bool = abi.future_poll(future)
            return done
        context = self.border.handles.context
        done = ticker.poll(context, future)
        if not done and self.border.pending is None and self._is_fresh(ticker.seconds):
            # The tick that ended its slice was due when that began: it gets a whole one.
            done = ticker.poll(context, future)
        return done

    def _is_fresh(self, slice_seconds: float) -> bool:
        return perf_counter() - self._slice_began < slice_seconds / 2

    async def _attend(self, call: PendingCall) -> Any:
        """The rest of a host call, or a turn for one that ended as the slice did."""
        if call.coroutine is None:
            await self._next_turn()
            return call.trap
        waiting_since = self._leave()
        value = await _go_on(call.coroutine, call.trap, self.on_park, self.on_wake)
        await self._come_back(waiting_since)
        return value

    def _may_go_on(self) -> bool:
        """A host call that never waits costs no look at the event loop, until the slice is over."""
        ticker = self.turns.ticker
        if ticker is not None:
            return perf_counter() - self._slice_began <= ticker.seconds
        self._ready_calls += 1
        return self._ready_calls < READY_CALLS_MAX

    async def _next_turn(self) -> None:
        """The slice is over: wait until every other busy guest has had one, or, while there is
        credit left, until the event loop has looked at everything else."""
        self._leave()
        if self._credit > 0:
            await trio.lowlevel.checkpoint()
            self._begin_slice()
            return
        await self.turns.queue.acquire()
        self._has_turn = True
        if self.turns.ticker is not None:  # counted slices must not depend on time
            with trio.move_on_after(STANDING_BACK_SECONDS):
                await wait_all_tasks_blocked()
        self._begin_slice()

    def _begin_slice(self) -> None:
        self._ready_calls = 0
        if self.turns.ticker is not None:
            self._slice_began = perf_counter()

    def _leave(self) -> float:
        """Stop running, for whatever reason."""
        if self._has_turn:
            self._has_turn = False
            self.turns.queue.release()
        if self.turns.ticker is None:
            return 0.0
        now = perf_counter()
        self._credit -= now - self._slice_began
        return now

    async def _come_back(self, waiting_since: float) -> None:
        """The wait is over: run at once if this guest has taken little, else in its turn."""
        ticker = self.turns.ticker
        self._begin_slice()
        if ticker is not None:
            earned = (self._slice_began - waiting_since) * WAKING_SHARE
            self._credit = min(WAKING_SLICES * ticker.seconds, self._credit + earned)
            if self._credit < 0:
                await self._next_turn()

    @trio.lowlevel.enable_ki_protection
    def _stop(self, future: int) -> None:
        abi.future_delete(future)
        if self._has_turn:
            self._has_turn = False
            self.turns.queue.release()
        pending, self.border.pending = self.border.pending, None
        if pending is not None and pending.coroutine is not None:
            pending.coroutine.close()
        self.border.may_go_on = always
        self._driven = False


async def follow(
    coroutine: Coroutine[Any, Any, T], on_park: Callable[[], None], on_wake: Callable[[], None]
) -> T:
    """Await a coroutine as a fiber awaits a host call: those who listen are told when it waits."""
    try:
        trap = coroutine.send(None)
    except StopIteration as end:
        return cast("T", end.value)
    return cast("T", await _go_on(coroutine, trap, on_park, on_wake))


@types.coroutine
def _go_on(
    coroutine: Coroutine[Any, Any, Any],
    trap: Any,
    on_park: Callable[[], None],
    on_wake: Callable[[], None],
) -> Generator[Any, Any, Any]:
    """Await the rest of a coroutine whose first step has been taken by hand.

    A mere checkpoint is not parking: the task runs again in the next turn of the event loop.
    """
    while True:
        parks = hasattr(trap, "abort_func")
        if parks:
            on_park()
        thrown: BaseException | None = None
        message: Any = None
        try:
            message = yield trap
        except BaseException as error:
            thrown = error
        if parks:
            on_wake()
        try:
            trap = coroutine.send(message) if thrown is None else coroutine.throw(thrown)
        except StopIteration as end:
            return end.value
