"""What is counted of the batches of one worker generation. Pure; nothing decides by it."""

from __future__ import annotations

import attrs


@attrs.define(eq=False)
class BatchCounts:
    """What `model_status` tells of the batches."""

    batches: int = 0
    rows: int = 0
    passes: int = 0
    sizes: list[int] = attrs.field(factory=list)  # how many batches had so many passes
    last_seconds: float = 0.0
    total_seconds: float = 0.0

    def note(self, passes: int, rows: int, seconds: float) -> None:
        self.batches += 1
        self.passes += passes
        self.rows += rows
        self.sizes += [0] * (passes + 1 - len(self.sizes))
        self.sizes[passes] += 1
        self.last_seconds = seconds
        self.total_seconds += seconds
