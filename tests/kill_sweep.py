"""Cancels an instance at the k-th step of its task, for every k.

Trio calls an instrument after each step of a task; the task is then suspended at its k-th
checkpoint, so a cancel that is made there is delivered exactly there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import trio


@attrs.define(eq=False)
class AtStep(trio.abc.Instrument):
    """Counts the steps of tasks whose name starts so, and acts once at the k-th."""

    name: str
    step: int
    act: Callable[[], Any]
    seen: int = 0
    acted: bool = False
    failure: BaseException | None = None

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if not task.name.startswith(self.name):
            return
        self.seen += 1
        if self.seen == self.step and not self.acted:
            self.acted = True
            try:
                self.act()
            except BaseException as error:  # Trio removes an instrument that raises
                self.failure = error


@attrs.define(eq=False)
class AtNextSteps(trio.abc.Instrument):
    """Acts after so many steps of whatever task; for the second cancellation, in the clean-up."""

    steps: int
    act: Callable[[], Any]

    def after_task_step(self, _task: trio.lowlevel.Task) -> None:
        self.steps -= 1
        if self.steps == 0:
            self.act()
