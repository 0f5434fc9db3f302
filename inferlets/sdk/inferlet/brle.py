"""Brle: run lengths of attended and masked tokens, the form in which a pass takes its mask.

The runs alternate and the first one is attended (it may be empty). Pure and immutable: every change
is a new value, so a mask that a pass was given can never change behind its back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class Brle:
    """One row of an attention mask over `len(mask)` tokens."""

    __slots__ = ("runs",)

    def __init__(self, runs: Iterable[int] = ()) -> None:
        self.runs: tuple[int, ...] = tuple(runs)
        if any(run < 0 for run in self.runs):
            raise ValueError("a run is never negative")

    @classmethod
    def attended(cls, length: int) -> Brle:
        """A mask that lets all `length` tokens through."""
        return cls([length] if length else [])

    @classmethod
    def from_masked(cls, masked: Sequence[bool]) -> Brle:
        """From one flag a token: true is masked."""
        runs: list[int] = []
        for flag in masked:
            while not runs or (len(runs) % 2 == 0) != flag:
                runs.append(0)
            runs[-1] += 1
        return cls(runs)

    def to_masked(self) -> list[bool]:
        """One flag a token: true is masked."""
        return [bool(place % 2) for place, run in enumerate(self.runs) for _ in range(run)]

    def __len__(self) -> int:
        return sum(self.runs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Brle) and self.to_masked() == other.to_masked()

    def __hash__(self) -> int:
        return hash(tuple(self.to_masked()))

    def __repr__(self) -> str:
        return f"Brle({list(self.runs)})"

    def is_masked(self, index: int) -> bool:
        """Whether the token at `index` is hidden."""
        if not 0 <= index < len(self):
            raise IndexError(f"token {index} of {len(self)}")
        end = 0
        for place, run in enumerate(self.runs):
            end += run
            if index < end:
                return bool(place % 2)
        raise AssertionError("an index below the length lies in some run")

    def extend(self, length: int, masked: bool = False) -> Brle:
        """The same mask with `length` more tokens at its end."""
        runs = list(self.runs) or [0]
        if (len(runs) % 2 == 0) == masked:
            runs[-1] += length
        else:
            runs.append(length)
        return Brle(runs)

    def mask_range(self, start: int, stop: int, masked: bool = True) -> Brle:
        """The same mask with the tokens in `start..stop` hidden (or shown again)."""
        flags = self.to_masked()
        if not 0 <= start <= stop <= len(flags):
            raise IndexError(f"tokens {start}..{stop} of {len(flags)}")
        flags[start:stop] = [masked] * (stop - start)
        return Brle.from_masked(flags)

    def remove_range(self, start: int, stop: int) -> Brle:
        """The mask without the tokens in `start..stop`."""
        flags = self.to_masked()
        if not 0 <= start <= stop <= len(flags):
            raise IndexError(f"tokens {start}..{stop} of {len(flags)}")
        return Brle.from_masked(flags[:start] + flags[stop:])


def causal_mask(total: int, rows: int) -> list[Brle]:
    """What the last `rows` of `total` tokens see by default: everything up to themselves."""
    return [Brle.attended(total - rows + row + 1) for row in range(rows)]
