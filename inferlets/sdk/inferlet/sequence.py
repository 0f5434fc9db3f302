"""TokenSequence: the tokens of a context, where they stand, what they see, what holds them.

The first `held` tokens are computed into `pages`, slot by slot in their order; the others are
pending. A full page may be shared; a page that is shared is never written again, so cutting one
means computing its tokens anew. It runs nothing and waits for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from inferlet.brle import Brle
from inferlet.visibility import Visibility

if TYPE_CHECKING:
    from inferlet.queue import KvPage


Tokens = Sequence[int]


class TokenSequence:
    """Indexes count the tokens that are left; positions are never given anew."""

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.visibility = Visibility()
        self.pages: list[KvPage] = []
        self.held = 0

    def fill(
        self,
        tokens: Sequence[int],
        positions: Sequence[int] | None = None,
        rows: Sequence[Brle] | None = None,
    ) -> None:
        """By default, positions count on and every token sees all that is not hidden."""
        if positions is None:
            start = self.positions[-1] + 1 if self.positions else 0
            positions = range(start, start + len(tokens))
        if len(positions) != len(tokens) or (rows is not None and len(rows) != len(tokens)):
            raise ValueError("positions and rows are given for every token or not at all")
        for offset, row in enumerate(rows or ()):
            self.visibility.give_row(len(self.tokens) + offset, row)
        self.tokens.extend(tokens)
        self.positions.extend(positions)

    def hide(self, start: int, stop: int, is_hidden: bool) -> None:
        if not 0 <= start <= stop <= len(self.tokens):
            raise IndexError(f"tokens {start}..{stop} of {len(self.tokens)}")
        self.visibility.hide(start, stop, is_hidden)

    def drop_hidden_pages(self) -> int:
        """Lets go of the full pages that nobody may see any more; says how many."""
        size = self.page_size
        dropped = 0
        for page in reversed(range(self.held // size)):
            start, stop = page * size, (page + 1) * size
            if self.visibility.is_all_hidden(start, stop):
                del self.pages[page], self.tokens[start:stop], self.positions[start:stop]
                self.visibility.remove(start, stop)
                self.held -= size
                dropped += 1
        return dropped

    def twin(self) -> TokenSequence:
        """The same tokens; full pages are shared, those of a partial one are pending."""
        twin = TokenSequence(self.page_size)
        twin.tokens, twin.positions = list(self.tokens), list(self.positions)
        twin.visibility = self.visibility.copy()
        twin.pages = self._share(self.held // self.page_size)
        twin.held = len(twin.pages) * self.page_size
        return twin

    def truncate(self, length: int) -> None:
        """Forgets the tokens from `length` on."""
        del self.tokens[length:], self.positions[length:]
        self.visibility.truncate(length)
        self.hold_at_most(length)

    def hold_at_most(self, count: int) -> None:
        """The tokens from `count` on are to be read again, with all of a shared page."""
        if count < self.held:
            size = self.page_size
            is_kept = count % size and not self.pages[count // size].is_shared
            pages = -(-count // size) if is_kept else count // size
            del self.pages[pages:]
            self.held = min(count, pages * size)

    def trim(self) -> None:
        """Lets go of the pages that hold nothing."""
        del self.pages[-(-self.held // self.page_size) :]

    def _share(self, count: int) -> list[KvPage]:
        for page in self.pages[:count]:
            page.is_shared = True
        return self.pages[:count]
