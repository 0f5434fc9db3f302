"""What is being done, on stderr: moving bars on a terminal, a line for each step elsewhere.

It owns the terminal's lower line while it is shown. Whatever ends the work, the bars are gone
afterwards and the cursor is back; steps that come later are plain lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import attrs
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from pie_trio.cli.output import Output


@attrs.define(eq=False)
class Steps:
    """Told what happens, by name; work of known size is counted."""

    output: Output
    bars: Progress | None = None
    _task: TaskID | None = None
    _name: str = ""

    def say(self, text: str) -> None:
        """The next step has begun; nobody knows how long it takes."""
        if self.bars is None:
            self.output.say(text)
        else:
            self._show(self.bars, text, 0, None)

    def count(self, name: str, done: int, total: int) -> None:
        """So much of a step of known size is done."""
        if self.bars is not None:
            self._show(self.bars, name, done, total)
        elif name != self._name:
            self.output.say(name)
        self._name = name

    def _show(self, bars: Progress, text: str, done: int, total: int | None) -> None:
        if self._task is None:
            self._task = bars.add_task(text, total=total)
        bars.update(self._task, description=text, completed=done)
        bars.tasks[0].total = total


@contextmanager
def open_steps(output: Output) -> Iterator[Steps]:
    """Bars only where somebody can see them move."""
    if not output.stderr.isatty():
        yield Steps(output)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(file=output.stderr), transient=True) as bars:
        steps = Steps(output, bars)
        try:
            yield steps
        finally:
            steps.bars = None
