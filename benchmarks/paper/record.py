"""What a run has measured: raw samples, each with its section, case, measure and round.

Pure but for the clock. A section is measured as a whole, so that its ratios are of one run; with
`--json` a run that measures some sections keeps the others that lie in the file already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from pie_trio.config import ModelSettings

Say = Callable[[str], object]


@attrs.frozen
class Sizes:
    """How much of everything, for two cores; `scaled` makes it more or less."""

    rounds: int = 5
    scale: float = 1.0
    is_quick: bool = False

    def of(self, count: float, least: int = 1) -> int:
        """A count of the default scale, at this one."""
        return max(least, round(count * self.scale))


@attrs.frozen(eq=False)
class Run:
    """What every section is given, and where it puts what it finds."""

    model: ModelSettings
    sizes: Sizes
    folder: Path  # of its own, gone afterwards
    say: Say
    samples: list[dict[str, Any]] = attrs.field(factory=list)
    facts: dict[str, Any] = attrs.field(factory=dict)

    def note(self, section: str, case: str, turn: int, **measures: float) -> None:
        for measure, value in measures.items():
            self.samples.append(
                {
                    "section": section,
                    "case": case,
                    "measure": measure,
                    "round": turn,
                    "value": value,
                }
            )


def rotated(items: Sequence[Any], turn: int) -> list[Any]:
    """The same things in another order each round, so that none is always measured first."""
    place = turn % len(items)
    return [*items[place:], *items[:place]]
