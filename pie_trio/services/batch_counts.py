"""What is counted of the batches of one worker generation, and how long a row takes.

Pure. The time of a row is that of a long batch: a short one lasts as long as reading the weights.
It must never be trusted for more than the size of the next batch.
"""

from __future__ import annotations

import attrs

from pie_trio.config import Limits

LONG_ROWS = 64


@attrs.define(eq=False)
class BatchCounts:
    """What `model_status` tells of the batches."""

    batches: int = 0
    rows: int = 0
    passes: int = 0
    sizes: list[int] = attrs.field(factory=list)  # how many batches had so many passes
    last_seconds: float = 0.0
    total_seconds: float = 0.0
    row_seconds: float | None = None  # of the last long batches, the newest counting half

    def budget(self, rows_max: int, limits: Limits) -> int:
        """The rows that the worker executes within `step_seconds_max`, by what it has shown."""
        if self.row_seconds is None:
            return min(rows_max, limits.batch_tokens_unmeasured)
        if self.row_seconds * rows_max <= limits.step_seconds_max:
            return rows_max
        rows = int(limits.step_seconds_max / self.row_seconds)
        return min(rows_max, max(limits.batch_tokens_min, rows))

    def note(self, passes: int, rows: int, seconds: float, steps: int = 1) -> None:
        """A batch; of several steps each counts as one."""
        seconds /= steps
        if rows >= LONG_ROWS:
            before = self.row_seconds
            newest = seconds / rows
            self.row_seconds = newest if before is None else (before + newest) / 2
        self.batches += steps
        self.passes += passes * steps
        self.rows += rows * steps
        self.sizes += [0] * (passes + 1 - len(self.sizes))
        self.sizes[passes] += steps
        self.last_seconds = seconds
        self.total_seconds += seconds * steps
