"""Visibility: what the tokens still to be read may see of those before them. Pure.

Hiding a token hides it from every token that the model has not read yet; what was read already
keeps what it saw. A token that was filled with a row of its own sees just what that row says. Every
token sees itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from inferlet.brle import Brle


class Visibility:
    """Counts tokens as their context does; tokens beyond the mask's end are seen."""

    def __init__(self, mask: Brle | None = None, rows: Mapping[int, Brle] | None = None) -> None:
        self.mask = mask or Brle()
        self.own_rows = dict(rows or {})

    def copy(self) -> Visibility:
        return Visibility(self.mask, self.own_rows)

    def hide(self, start: int, stop: int, is_hidden: bool = True) -> None:
        """Hides these tokens from all that are still to be read, or shows them again."""
        covering = self.mask.resize(max(len(self.mask), stop))
        self.mask = covering.mask_range(start, stop, is_hidden)

    def give_row(self, token: int, row: Brle) -> None:
        """What `token` sees, whatever is hidden otherwise."""
        self.own_rows[token] = row.resize(token).extend(1)

    def rows(self, start: int, stop: int) -> list[Brle] | None:
        """What the tokens in `start..stop` see up to themselves; None if that is everything."""
        shown = self.mask.resize(stop)
        own = any(start <= token < stop for token in self.own_rows)
        if not own and not any(shown.runs[1::2]):
            return None
        return [
            self.own_rows.get(token) or shown.resize(token).extend(1)
            for token in range(start, stop)
        ]

    def is_all_hidden(self, start: int, stop: int) -> bool:
        """Whether nobody may see any of these tokens any more."""
        return stop <= len(self.mask) and self.mask.is_all_masked(start, stop)

    def remove(self, start: int, stop: int) -> None:
        """The tokens in `start..stop` have left the context; later ones move up."""
        self.mask = self.mask.remove_range(start, min(stop, len(self.mask)))
        self.own_rows = {
            token - (stop - start): row.remove_range(start, stop)
            for token, row in self.own_rows.items()
            if token >= stop
        } | {token: row for token, row in self.own_rows.items() if token < start}

    def truncate(self, length: int) -> None:
        """The tokens from `length` on have left the context."""
        self.mask = self.mask.resize(min(length, len(self.mask)))
        self.own_rows = {token: row for token, row in self.own_rows.items() if token < length}
