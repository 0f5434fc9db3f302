"""Samples of a record as a reader wants them: the middle, its bounds, and which there are. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from benchmarks.bars.paper import bounds

NOTHING = "-"
Record = dict[str, Any]


def middle(values: Iterable[float], unit: float = 1.0, digits: int = 2) -> str:
    found = list(values)
    return f"{median(found) * unit:.{digits}f}" if found else NOTHING


def spread(values: Sequence[float], unit: float = 1.0, digits: int = 2) -> str:
    """The median and its 95 % bounds."""
    if not values:
        return NOTHING
    low, high = bounds(values)
    return f"{median(values) * unit:.{digits}f} [{low * unit:.{digits}f}, {high * unit:.{digits}f}]"


def cases_of(record: Record, section: str, measure: str) -> list[str]:
    """In the order in which they were measured first."""
    return list(
        dict.fromkeys(
            sample["case"]
            for sample in record["samples"]
            if sample["section"] == section and sample["measure"] == measure
        )
    )
