"""From a synchronous verb into Trio and back: signals, exit codes, errors told to a person.

The first Ctrl-C or SIGTERM asks for an orderly end, the second one ends the process at once: its
workers see that through their pidfd and follow. A refusal becomes one line on stderr and its exit
code; a bug keeps its traceback. It never waits without listening for signals.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NoReturn

import attrs
import trio
import typer

from pie_trio.cli.exit_codes import ExitCode


def leave_with(work: Callable[[], Awaitable[ExitCode]]) -> NoReturn:
    """Runs an asynchronous verb to its end and ends the process with its exit code."""
    try:
        code = trio.run(work, restrict_keyboard_interrupt_to_checkpoints=True)
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    raise typer.Exit(int(code))


@attrs.define(eq=False)
class Interrupts:
    """What the first signal does just now, and whether it has come."""

    on_first: Callable[[], object]
    came: bool = False

    def _signal(self) -> None:
        if self.came:
            os._exit(ExitCode.INTERRUPTED)
        self.came = True
        self.on_first()

    async def _listen(self, signals: AsyncIterator[int]) -> None:
        async for _ in signals:
            self._signal()


@asynccontextmanager
async def open_interrupts(on_first: Callable[[], object]) -> AsyncIterator[Interrupts]:
    interrupts = Interrupts(on_first)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(interrupts._listen, signals)
            yield interrupts
            nursery.cancel_scope.cancel()
