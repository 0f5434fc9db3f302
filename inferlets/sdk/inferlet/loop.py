"""HostLoop: a small asyncio event loop over the host's pollables.

It owns every task of the program; when the program's main function is over, the tasks that are left
are cancelled. It blocks in one place only, the host's poll, so many forward passes, messages and
sleeps wait at once. It must never spin: with nothing ready it asks the host, and when there is
nothing to ask for it says that the program waits for ever.
"""

from __future__ import annotations

import asyncio
import heapq
import sys
import traceback
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextvars import Context
from typing import Any, Protocol, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

ROUNDS_BETWEEN_POLLS = 32  # so that tasks that never wait do not starve those that do


class Poller(Protocol):
    """What the loop needs of the host."""

    def now(self) -> float:
        """Seconds on a clock that never goes back."""

    def poll(self, pollables: Sequence[Any], until: float | None) -> list[int]:
        """Waits until one is ready or the time has come; the places of those that are ready."""


class WaitsForEver(RuntimeError):
    """Every task waits for another one; nothing from outside can wake them."""


class HostLoop(asyncio.AbstractEventLoop):
    """Runs one main coroutine to its end."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timers_made = 0
        self._waiting: list[tuple[Any, asyncio.Future[None]]] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._rounds = 0

    def run_until_complete(self, main: Coroutine[Any, Any, T]) -> T:  # type: ignore[override]
        """The result of `main`; what it left running is cancelled first."""
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(finalizer=self._close_generator)
        asyncio._set_running_loop(self)
        try:
            task = self.create_task(main)
            try:
                self._run_until_done(task)
            finally:
                self._cancel_the_rest()
            return task.result()
        finally:
            asyncio._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)

    async def wait(self, pollable: Any) -> None:
        """Returns when `pollable` is ready, says the host. Cancelled: nothing is left behind."""
        future = self.create_future()
        entry = (pollable, future)
        self._waiting.append(entry)
        try:
            await future
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)

    # One round: run what is ready, then ask the host.

    def _run_until_done(self, task: asyncio.Task[Any]) -> None:
        while not task.done():
            self._run_ready()
            self._rounds += 1
            if not task.done() and (not self._ready or self._rounds % ROUNDS_BETWEEN_POLLS == 0):
                self._ask_host()

    def _run_ready(self) -> None:
        for _ in range(len(self._ready)):
            handle = self._ready.popleft()
            if not handle.cancelled():
                handle._run()

    def _ask_host(self) -> None:
        self._forget_cancelled_timers()
        until = self._timers[0][0] if self._timers else None
        if self._ready:
            until = self._poller.now()
        elif until is None and not self._waiting:
            raise WaitsForEver("every task of the program waits for another one")
        pollables = [pollable for pollable, _ in self._waiting]
        entries = [self._waiting[place] for place in self._poller.poll(pollables, until)]
        for entry in entries:
            self._waiting.remove(entry)
            if not entry[1].done():
                entry[1].set_result(None)
        self._wake_timers()

    def _forget_cancelled_timers(self) -> None:
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)

    def _wake_timers(self) -> None:
        if not self._timers:
            return
        now = self._poller.now()
        while self._timers and self._timers[0][0] <= now:
            self._ready.append(heapq.heappop(self._timers)[2])

    def _cancel_the_rest(self) -> None:
        for task in self._tasks:
            task.cancel("the program's main function is over")
        for task in list(self._tasks):
            self._run_until_done(task)

    def _close_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        self.create_task(generator.aclose())

    # What asyncio asks of a loop.

    def create_task(self, coro: Coroutine[Any, Any, T], **options: Any) -> asyncio.Task[T]:
        task = asyncio.Task(coro, loop=self, **options)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def call_soon(
        self,
        callback: Callable[[Unpack[Arguments]], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Arguments]], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Arguments]], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._timers_made += 1
        heapq.heappush(self._timers, (when, self._timers_made, handle))
        return handle

    def time(self) -> float:
        return self._poller.now()

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """An error that nobody awaited goes to the program's stderr."""
        sys.stderr.write(f"{context.get('message', 'unhandled error')}\n")
        error = context.get("exception")
        if error is not None:
            sys.stderr.write("".join(traceback.format_exception(error)))

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer is forgotten when it comes to the front."""
