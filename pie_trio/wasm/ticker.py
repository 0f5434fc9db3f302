"""What ends a busy guest's slice of the processor, and who runs next.

Production: a thread raises wasmtime's epoch once a millisecond, only while a guest is running; a
guest that sees it yields. Tests: a slice is a number of instructions, so every run has the same
trace. Either way a guest whose slice is over queues up behind the other busy ones, and the event
loop runs at most one of them between two looks at everything else. The thread ends with the
sandbox.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import attrs

from pie_trio.wasm import abi


@attrs.frozen
class EpochSlices:
    """Slices of time."""

    seconds: float = 0.001


@attrs.frozen
class FuelSlices:
    """Slices of counted instructions, the same in every run."""

    instructions: int = 200_000


Slicing = EpochSlices | FuelSlices


class Slicer(Protocol):
    """What lets guests run for a slice of so many seconds at most."""

    @property
    def seconds(self) -> float: ...
    def poll(self, context: int, future: int) -> bool: ...


@attrs.define(eq=False)
class Ticker:
    """Raises the epoch of one engine while `running` is set. `native.ticker` is the same in C."""

    engine_address: int
    seconds: float
    running: bool = False
    was_running: bool = False  # a guest, since the last tick
    asleep: bool = False  # waiting for the next `start`
    _closing: bool = False
    _wake: threading.Event = attrs.field(factory=threading.Event)

    def poll(self, context: int, future: int) -> bool:
        """Let a guest run until it ends, waits, or its slice, which begins now, is over."""
        self.start()
        abi.epoch_deadline(context, 1)
        try:
            done: bool = abi.future_poll(future)
        finally:
            self.stop()
        return done

    def start(self) -> None:
        """A guest begins to run."""
        self.running = self.was_running = True
        if self.asleep:
            self._wake.set()

    def stop(self) -> None:
        """No guest runs any more; the thread notices by itself."""
        self.running = False

    def close(self) -> None:
        """Let the thread end."""
        self._closing = True
        self._wake.set()

    def tick(self) -> None:
        """The thread's loop. Setting `asleep` before the last look leaves no gap for `start`."""
        while not self._closing:
            was_running, self.was_running = self.was_running, False
            if self.running:
                abi.epoch_increment(self.engine_address)
            elif not was_running:
                self._sleep_until_started()
                self.was_running = False  # who wakes it alone, does not keep it awake
            time.sleep(self.seconds)

    def _sleep_until_started(self) -> None:
        self._wake.clear()
        self.asleep = True
        if not self.running and not self._closing:
            self._wake.wait()
        self.asleep = False


@contextmanager
def open_ticker(engine_address: int, slicing: Slicing) -> Iterator[Ticker | None]:
    """Run a ticker beside the block, if slices are made of time."""
    if isinstance(slicing, FuelSlices):
        yield None
        return
    ticker = Ticker(engine_address, slicing.seconds)
    thread = threading.Thread(target=ticker.tick, name="wasm ticker", daemon=True)
    thread.start()
    try:
        yield ticker
    finally:
        ticker.close()
        thread.join()
