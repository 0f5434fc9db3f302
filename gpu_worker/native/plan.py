"""What one batch means for the attention kernel, in arrays that every layer reads.

Owns the addressing: where each new row is written, which rows share a tile, and the intervals of
slots that each row sees (one, up to itself, where there is no mask). All of it is computed for the
whole batch at once. The batch has been checked: the kernel follows these numbers blindly.
It must never let a row see a slot that its mask hides.
"""

import attrs
import numpy as np
import torch

from gpu_worker.checks import kv_totals
from gpu_worker.kernels import Step
from gpu_worker.native.memory import PAGE_SIZE
from gpu_worker.wire import BatchArrays
from gpu_worker.wire.arrays import Array

LINES_MAX = 32  # rows times query heads that a tile has room for
PART_PAGES_MIN = 4  # a shorter context is not shared between threads
PARTS_PER_THREAD = 4  # so many pieces of work a thread make threads end together


@attrs.frozen(eq=False)
class KernelPlan:
    """`places` [row] is page * page size + slot; tiles are those of `source/attention.h`."""

    positions: Array
    places: Array
    tiles: Array
    part_count: int
    pages: Array
    interval_indptr: Array
    intervals: Array


@attrs.frozen(eq=False)
class _Rows:
    """The selected rows: which request is theirs, where they are in the batch, their own slot."""

    owner: Array
    number: Array
    slot: Array


def make_plan(step: Step, heads_sharing: int, key_heads: int) -> KernelPlan:
    """Row numbers count only the selected rows, in order."""
    batch, requests = step.batch, step.requests
    counts = np.diff(batch.row_indptr)[requests]
    owner = np.repeat(requests, counts)
    totals = kv_totals(batch, PAGE_SIZE)
    slot = totals[owner] - batch.row_indptr[1:][owner] + step.rows
    page = batch.pages[batch.page_indptr[owner] + slot // PAGE_SIZE].astype(np.int64)
    indptr, intervals = _intervals(batch, _Rows(owner, step.rows, slot))
    tiles = _tiles(batch, requests, counts, max(1, LINES_MAX // heads_sharing))
    tiles, parts = _in_parts(tiles, key_heads)
    return KernelPlan(
        positions=batch.positions[step.rows],
        places=page * PAGE_SIZE + slot % PAGE_SIZE,
        tiles=tiles,
        part_count=parts,
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


def _tiles(batch: BatchArrays, requests: Array, counts: Array, height: int) -> Array:
    """Each request's rows in tiles of at most `height`, over all pages that they may see."""
    tiles = -(-counts // height)
    offset = _ranges(np.zeros(len(counts), dtype=np.int64), tiles) * height
    first = np.repeat(_indptr(counts)[:-1], tiles)
    rows = np.minimum(np.repeat(counts, tiles) - offset, height)
    totals = kv_totals(batch, PAGE_SIZE)[requests]
    # Without a mask a row sees nothing behind itself.
    hidden = np.where(
        np.repeat(batch.masked[requests], tiles), 0, np.repeat(counts, tiles) - offset - rows
    )
    result = np.zeros((len(rows), 8), dtype=np.int32)
    result[:, 0], result[:, 1] = first + offset, rows
    result[:, 2] = np.repeat(batch.page_indptr[:-1][requests], tiles)
    result[:, 4] = -(-(np.repeat(totals, tiles) - hidden) // PAGE_SIZE)
    result[:, 5] = 1
    return result


def _in_parts(tiles: Array, key_heads: int) -> tuple[Array, int]:
    """Long contexts cut into parts where there are too few tiles for all threads; and how many."""
    pages = tiles[:, 4]
    fair = int(pages.sum()) * key_heads // (torch.get_num_threads() * PARTS_PER_THREAD)
    longest = max(PART_PAGES_MIN, fair)
    parts = np.where(pages > longest, -(-pages // longest), 1)
    if len(tiles) == 0 or parts.max() == 1:
        return tiles, 0
    part = _ranges(np.zeros(len(tiles), dtype=np.int64), parts)
    cut = np.repeat(tiles, parts, axis=0)
    length = -(-cut[:, 4] // np.repeat(parts, parts))
    cut[:, 3] = np.minimum(part * length, cut[:, 4])
    cut[:, 4] = np.minimum(cut[:, 3] + length, cut[:, 4])
    cut[:, 5] = np.repeat(parts, parts)
    cut[:, 6] = np.arange(len(cut))
    cut[:, 7] = cut[:, 6] - part
    return cut, len(cut)


def _indptr(counts: Array) -> Array:
    indptr = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=indptr[1:])
    return indptr


def _ranges(starts: Array, counts: Array) -> Array:
    """start, start + 1, ... of each start, as many as its count, one range after the other."""
    indptr = _indptr(counts)
    flat: Array = np.repeat(starts - indptr[:-1], counts) + np.arange(indptr[-1])
    return flat
