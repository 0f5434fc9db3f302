"""Which slots of which page hold something that was written since the page was granted.

Pure. A page comes to its next owner with its last owner's keys and values still in it; nobody may
read a slot that no pass has written since. Marks are set when a pass is submitted, because the
passes behind it may count on it, and taken away again when it fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

from pie_trio.messages import PageId

Interval = tuple[int, int]  # half-open


def written_ranges(
    pages: int, page_size: int, last_page_length: int, rows: int
) -> dict[int, range]:
    """The slots that the last `rows` of a context take, by the index of the page."""
    if rows == 1:
        return {pages - 1: range(last_page_length - 1, last_page_length)}
    total = (pages - 1) * page_size + last_page_length
    first = total - rows
    return {
        index: range(max(0, first - index * page_size), min(page_size, total - index * page_size))
        for index in range(first // page_size, pages)
    }


def bits_of(slots: range) -> int:
    return (1 << slots.stop) - (1 << slots.start)


@attrs.define(eq=False)
class SlotMarks:
    """A bit a slot of every page that was granted."""

    _marks: dict[PageId, int] = attrs.field(factory=dict)

    def clear(self, page: PageId) -> None:
        self._marks.pop(page, None)

    def set(self, page: PageId, slots: range) -> None:
        self._marks[page] = self._marks.get(page, 0) | bits_of(slots)

    def unset(self, page: PageId, slots: range) -> None:
        self._marks[page] = self._marks.get(page, 0) & ~bits_of(slots)

    def copy(self, source: PageId, target: PageId) -> None:
        self._marks[target] = self._marks.get(source, 0)

    def copy_first(self, source: PageId, target: PageId, count: int) -> None:
        """Of the target, nothing but the first slots is left."""
        self._marks[target] = self._marks.get(source, 0) & bits_of(range(count))

    def gaps(self, pages: Sequence[PageId], page_size: int, end: int) -> list[Interval]:
        """The slots before `end` of a context over these pages that nobody has written."""
        gaps: list[Interval] = []
        count, whole = -(-end // page_size), (1 << page_size) - 1
        first = 0
        if [*map(self._marks.get, pages[: count - 1])].count(whole) == count - 1:
            first = count - 1  # the usual case, at little cost: only the last page is partial
        for index in range(first, count):
            needed = (1 << min(page_size, end - index * page_size)) - 1
            missing = needed & ~self._marks.get(pages[index], 0)
            if missing:
                gaps += [
                    (index * page_size + start, index * page_size + stop)
                    for start, stop in _runs(missing)
                ]
        return gaps


def _runs(bits: int) -> Iterator[Interval]:
    position = 0
    while bits >> position:
        if bits >> position & 1:
            first = position
            while bits >> position & 1:
                position += 1
            yield first, position
        else:
            position += 1


def first_read(gaps: Sequence[Interval], row: Sequence[int]) -> int | None:
    """The first slot in a gap that a row of attended intervals reads; None if it reads none."""
    for start, end in zip(row[::2], row[1::2], strict=True):
        for first, last in gaps:
            if first < end and start < last:
                return max(first, start)
    return None
