"""What one batch means for attention, worked out once and used by every layer.

Owns the addressing: where each new row is written, and which places each row reads. Neighbouring
rows of a request form a tile, which gathers what any of them sees and nothing else, so the cost
grows with the keys that are kept. Tiles of one row are put into groups of similar length, so that a
group is one attention call; a tile of several rows is a call of its own.
It must never let a row read a place outside its request's pages, or a slot that its mask hides.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise

import attrs
import numpy as np
import torch

from gpu_worker.checks import kv_totals
from gpu_worker.wire import BatchArrays
from gpu_worker.wire.arrays import Array

TILE_ROWS = 64


@attrs.frozen(eq=False)
class Group:
    """Tiles of equally many rows, padded to the one with most places.

    rows [tile, row] are row numbers of the batch; places [tile, place] lie in the cache;
    seen [tile, row, place] is what the masks allow.
    """

    rows: torch.Tensor
    places: torch.Tensor
    seen: torch.Tensor


@attrs.frozen(eq=False)
class Plan:
    """`appends` is the place of each row of the batch."""

    appends: torch.Tensor
    groups: tuple[Group, ...]


@attrs.frozen(eq=False)
class _Tile:
    """The places that any of its rows sees, in the order of their slots; at least one.

    seen [row, place]
    """

    first_row: int
    places: Array
    seen: Array


def make_plan(batch: BatchArrays, requests: list[int], page_size: int) -> Plan:
    """A plan for these requests of the batch; row numbers count only their rows, in order."""
    totals = kv_totals(batch, page_size)
    appends = [np.zeros(0, np.int64)]
    tiles: list[_Tile] = []
    first_row = 0
    for request in requests:
        places = _places(batch, request, int(totals[request]), page_size)
        seen = _seen(batch, request, len(places))
        tiles += [
            _tile(first_row + first, places, seen[first : first + TILE_ROWS])
            for first in range(0, len(seen), TILE_ROWS)
        ]
        appends.append(places[len(places) - len(seen) :])
        first_row += len(seen)
    groups = tuple(_group(members) for members in _similar(tiles))
    return Plan(torch.from_numpy(np.concatenate(appends)), groups)


def _places(batch: BatchArrays, request: int, total: int, page_size: int) -> Array:
    """All that a request keeps, its new rows included."""
    pages = batch.pages[batch.page_indptr[request] : batch.page_indptr[request + 1]]
    flat: Array = (pages.astype(np.int64)[:, None] * page_size + np.arange(page_size)).ravel()
    return flat[:total]


def _seen(batch: BatchArrays, request: int, total: int) -> list[Array]:
    """The intervals [start, stop) of slots that each row of a request sees."""
    first, end = batch.row_indptr[request : request + 2].tolist()
    if not batch.masked[request]:
        return [np.array([[0, total - end + row + 1]]) for row in range(first, end)]
    stops = batch.mask_indptr[first : end + 1].tolist()
    return [batch.mask_intervals[start:stop] for start, stop in pairwise(stops)]


def _tile(first_row: int, places: Array, intervals: list[Array]) -> _Tile:
    kept = _kept(np.concatenate(intervals), len(places))
    order = np.concatenate(([0], kept.cumsum()))  # of each slot among those that are kept
    if not order[-1]:
        return _Tile(first_row, places[:1], np.zeros((len(intervals), 1), dtype=bool))
    seen = np.zeros((len(intervals), order[-1]), dtype=bool)
    for row, own in enumerate(intervals):
        for start, stop in order[own].tolist():
            seen[row, start:stop] = True
    return _Tile(first_row, places[kept], seen)


def _kept(intervals: Array, total: int) -> Array:
    """Which slots lie in any interval."""
    steps = np.zeros(total + 1, np.int64)
    np.add.at(steps, intervals[:, 0], 1)
    np.add.at(steps, intervals[:, 1], -1)
    kept: Array = steps[:-1].cumsum() > 0
    return kept


def _similar(tiles: Iterable[_Tile]) -> Iterator[list[_Tile]]:
    """Single rows whose numbers of places have the same bit length; all others alone."""
    singles: dict[int, list[_Tile]] = defaultdict(list)
    for tile in tiles:
        if len(tile.seen) == 1:
            singles[len(tile.places).bit_length()].append(tile)
        else:
            yield [tile]
    yield from singles.values()


def _group(tiles: list[_Tile]) -> Group:
    count, longest = len(tiles[0].seen), max(len(tile.places) for tile in tiles)
    places = np.zeros((len(tiles), longest), dtype=np.int64)
    seen = np.zeros((len(tiles), count, longest), dtype=bool)
    for line, tile in enumerate(tiles):
        places[line, : len(tile.places)] = tile.places
        # Padding repeats the tile's own first place: what others keep cannot even be read.
        places[line, len(tile.places) :] = tile.places[0]
        seen[line, :, : len(tile.places)] = tile.seen
    rows = np.array([tile.first_row for tile in tiles])[:, None] + np.arange(count)
    return Group(torch.from_numpy(rows), torch.from_numpy(places), torch.from_numpy(seen))
