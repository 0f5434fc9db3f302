"""Brle: run lengths of attended and masked tokens, the form in which a pass takes its mask.

The runs alternate and the first one is attended (it may be empty). Pure and immutable: every
change is a new value, so a mask that a pass was given can never change behind its back. What a
change costs grows with the runs, not with the tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


class Brle:
    """One row of an attention mask over `len(mask)` tokens."""

    __slots__ = ("_length", "runs")

    def __init__(self, runs: Iterable[int] = ()) -> None:
        self.runs: tuple[int, ...] = tuple(runs)
        if any(run < 0 for run in self.runs):
            raise ValueError("a run is never negative")
        self._length = sum(self.runs)

    @classmethod
    def attended(cls, length: int) -> Brle:
        """A mask that lets all `length` tokens through."""
        return cls([length] if length else [])

    @classmethod
    def from_masked(cls, masked: Sequence[bool]) -> Brle:
        """From one flag a token: true is masked."""
        return _joined((1, bool(flag)) for flag in masked)

    def to_masked(self) -> list[bool]:
        """One flag a token: true is masked."""
        return [masked for run, masked in self._pieces() for _ in range(run)]

    def __len__(self) -> int:
        return self._length

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Brle) and self._canonical() == other._canonical()

    def __hash__(self) -> int:
        return hash(self._canonical())

    def __repr__(self) -> str:
        return f"Brle({list(self.runs)})"

    def is_masked(self, index: int) -> bool:
        """Whether the token at `index` is hidden."""
        return self.is_all_masked(index, index + 1)

    def is_all_masked(self, start: int, stop: int) -> bool:
        """Whether every token in `start..stop` is hidden."""
        self._check(start, stop)
        return all(masked for _, masked in self._cut(start, stop))

    def extend(self, length: int, masked: bool = False) -> Brle:
        """The same mask with `length` more tokens at its end."""
        return _joined((*self._pieces(), (length, masked)))

    def mask_range(self, start: int, stop: int, masked: bool = True) -> Brle:
        """The same mask with the tokens in `start..stop` hidden (or shown again)."""
        self._check(start, stop)
        new = (stop - start, masked)
        return _joined((*self._cut(0, start), new, *self._cut(stop, self._length)))

    def remove_range(self, start: int, stop: int) -> Brle:
        """The mask without the tokens in `start..stop`."""
        self._check(start, stop)
        return _joined((*self._cut(0, start), *self._cut(stop, self._length)))

    def resize(self, length: int) -> Brle:
        """The same mask over its first `length` tokens; those that it lacks are attended."""
        if length <= self._length:
            return self.remove_range(length, self._length)
        return self.extend(length - self._length)

    def _pieces(self) -> Iterator[tuple[int, bool]]:
        """Each run and whether it is hidden."""
        for place, run in enumerate(self.runs):
            yield run, place % 2 == 1

    def _cut(self, start: int, stop: int) -> Iterator[tuple[int, bool]]:
        """The pieces of `start..stop`."""
        begin = 0
        for run, masked in self._pieces():
            shared = min(begin + run, stop) - max(begin, start)
            if shared > 0:
                yield shared, masked
            begin += run

    def _check(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= self._length:
            raise IndexError(f"tokens {start}..{stop} of {self._length}")

    def _canonical(self) -> tuple[int, ...]:
        return _joined(self._pieces()).runs


def causal_mask(total: int, rows: int) -> list[Brle]:
    """What the last `rows` of `total` tokens see by default: everything up to themselves."""
    return [Brle.attended(total - rows + row + 1) for row in range(rows)]


def _joined(pieces: Iterable[tuple[int, bool]]) -> Brle:
    """Pieces one after the other; neighbours of a kind become one run."""
    runs: list[int] = []
    for length, masked in pieces:
        if not length:
            continue
        if masked and not runs:
            runs.append(0)
        if not runs or (len(runs) % 2 == 0) != masked:
            runs.append(0)
        runs[-1] += length
    return Brle(runs)
