"""From a guest's run lengths (BRLE) to the attended intervals that a worker reads.

Pure. A row's runs alternate, the first one attends, and they must add up to the slots that the
row may see: a row of another length, or one that attends to nothing, is refused before it is sent.
It must never hand on empty or touching intervals: a worker may rely on them being in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from pie_trio.errors import GuestFault


def attended_intervals(runs: Sequence[int], slots: int, row: int) -> tuple[int, ...]:
    """The half-open intervals a0, b0, a1, b1, ... that a row with `slots` slots attends to."""
    ends = list(accumulate(runs))
    total = ends[-1] if ends else 0
    if total != slots:
        raise GuestFault(
            f"forward-pass.execute: the mask of row {row} covers {total} slots; "
            f"its context and itself are {slots}"
        )
    if len(ends) % 2 == 0:
        ends.pop()  # the last run is masked: what is attended ends before it
    bounds = (0, *ends)
    intervals = bounds if 0 not in runs else _without_empty_runs(bounds)
    if not intervals:
        raise GuestFault(
            f"forward-pass.execute: the mask of row {row} attends to nothing; "
            f"a row attends to at least one slot"
        )
    return intervals


def is_causal(mask: Sequence[Sequence[int]], context: int) -> bool:
    """Whether every row attends to all that is before it and to itself."""
    return all(
        len(row) == 2 and row[0] == 0 and row[1] == context + number + 1
        for number, row in enumerate(mask)
    )


def _without_empty_runs(bounds: Sequence[int]) -> tuple[int, ...]:
    """Drops empty intervals and joins those that only an empty masked run keeps apart."""
    joined: list[int] = []
    for start, end in zip(bounds[::2], bounds[1::2], strict=True):
        if start == end:
            continue
        if joined and joined[-1] == start:
            joined[-1] = end
        else:
            joined += (start, end)
    return tuple(joined)
