"""What one batch means for the attention kernel, in arrays that every layer reads.

Owns the addressing: where each new row is written, which rows share a tile, and the intervals of
slots that each row sees (one, up to itself, where there is no mask). All of it is computed for the
whole batch at once. The batch has been checked: the kernel follows these numbers blindly.
It must never let a row see a slot that its mask hides.
"""

import attrs
import numpy as np

from gpu_worker.checks import kv_totals
from gpu_worker.wire import BatchArrays
from gpu_worker.wire.arrays import Array

LINES_MAX = 32  # rows times query heads that a tile has room for


@attrs.frozen(eq=False)
class KernelPlan:
    """`places` [row] is page * page size + slot; tiles are [first row, rows, first of `pages`]."""

    places: Array
    tiles: Array
    pages: Array
    interval_indptr: Array
    intervals: Array


@attrs.frozen(eq=False)
class _Rows:
    """The selected rows: which request is theirs, where they are in the batch, their own slot."""

    owner: Array
    number: Array
    slot: Array


def make_plan(
    batch: BatchArrays, requests: list[int], page_size: int, heads_sharing: int
) -> KernelPlan:
    """A plan for these requests of the batch; row numbers count only their rows, in order."""
    counts = np.diff(batch.row_indptr)[requests]
    owner = np.repeat(np.asarray(requests, dtype=np.int64), counts)
    number = _ranges(batch.row_indptr[requests], counts)
    ends = batch.row_indptr[1:][owner]
    rows = _Rows(owner, number, kv_totals(batch, page_size)[owner] - ends + number)
    page = batch.pages[batch.page_indptr[owner] + rows.slot // page_size].astype(np.int64)
    indptr, intervals = _intervals(batch, rows)
    return KernelPlan(
        places=page * page_size + rows.slot % page_size,
        tiles=_tiles(batch.page_indptr[requests], counts, max(1, LINES_MAX // heads_sharing)),
        pages=np.ascontiguousarray(batch.pages, dtype=np.int32),
        interval_indptr=indptr.astype(np.int32),
        intervals=intervals,
    )


def _intervals(batch: BatchArrays, rows: _Rows) -> tuple[Array, Array]:
    """Index pointers by selected row, and the intervals of all of them."""
    masked = batch.masked[rows.owner].astype(bool)
    given = np.diff(batch.mask_indptr)[rows.number]
    indptr = _indptr(np.where(masked, given, 1))
    intervals = np.zeros((indptr[-1], 2), dtype=np.int32)
    intervals[indptr[:-1][~masked], 1] = rows.slot[~masked] + 1
    source = _ranges(batch.mask_indptr[rows.number[masked]], given[masked])
    intervals[_ranges(indptr[:-1][masked], given[masked])] = batch.mask_intervals[source]
    return indptr, intervals


def _tiles(first_pages: Array, counts: Array, height: int) -> Array:
    """Each request's rows in tiles of at most `height`."""
    tiles = -(-counts // height)
    offset = _ranges(np.zeros(len(counts), dtype=np.int64), tiles) * height
    first = np.repeat(_indptr(counts)[:-1], tiles)
    rows = np.minimum(np.repeat(counts, tiles) - offset, height)
    columns = (first + offset, rows, np.repeat(first_pages, tiles))
    return np.ascontiguousarray(np.stack(columns, axis=1), dtype=np.int32)


def _indptr(counts: Array) -> Array:
    indptr = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=indptr[1:])
    return indptr


def _ranges(starts: Array, counts: Array) -> Array:
    """start, start + 1, ... of each start, as many as its count, one range after the other."""
    indptr = _indptr(counts)
    flat: Array = np.repeat(starts - indptr[:-1], counts) + np.arange(indptr[-1])
    return flat
