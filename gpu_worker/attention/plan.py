"""What one batch means for attention, worked out once and used by every layer.

Owns the addressing: where each new row is written, and which places each row reads. Decoding rows
are gathered into groups of similar length, so that a group is one attention call; a request of
several rows is a call of its own.
It must never let a row read a place outside its request's pages, or a slot that its mask hides.
"""

from collections import defaultdict
from collections.abc import Iterator

import attrs
import numpy as np
import torch

from gpu_worker.checks import kv_totals
from gpu_worker.wire import BatchArrays
from gpu_worker.wire.arrays import Array


@attrs.frozen(eq=False)
class Group:
    """Requests of equally many rows, padded to the longest context.

    rows [request, row] are row numbers of the batch; places [request, slot] lie in the cache;
    seen [request, row, slot] is what the masks allow.
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
class Spans:
    """The requests that are executed: their row ranges, context lengths and all their places."""

    row_starts: Array
    row_counts: Array
    totals: Array
    pages: tuple[Array, ...]

    def places(self, request: int, page_size: int) -> Array:
        pages = self.pages[request].astype(np.int64)[:, None] * page_size
        flat: Array = (pages + np.arange(page_size)).ravel()[: self.totals[request]]
        return flat


def make_plan(batch: BatchArrays, requests: list[int], page_size: int) -> Plan:
    """A plan for these requests of the batch; row numbers count only their rows, in order."""
    counts = np.diff(batch.row_indptr)[requests]
    pages = tuple(batch.pages[batch.page_indptr[i] : batch.page_indptr[i + 1]] for i in requests)
    starts = np.concatenate(([0], np.cumsum(counts)[:-1])) if len(requests) else counts
    spans = Spans(starts, counts, kv_totals(batch, page_size)[requests], pages)
    places = [spans.places(index, page_size) for index in range(len(requests))]
    appends = [place[len(place) - count :] for place, count in zip(places, counts, strict=True)]
    groups = tuple(_group(batch, requests, members, spans, places) for members in _similar(spans))
    return Plan(torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *appends])), groups)


def _similar(spans: Spans) -> Iterator[list[int]]:
    """Single rows whose context lengths have the same bit length; all others alone."""
    singles: dict[int, list[int]] = defaultdict(list)
    for index, (count, total) in enumerate(zip(spans.row_counts, spans.totals, strict=True)):
        if count == 1:
            singles[int(total).bit_length()].append(index)
        else:
            yield [index]
    yield from singles.values()


def _group(
    batch: BatchArrays,
    requests: list[int],
    members: list[int],
    spans: Spans,
    places: list[Array],
) -> Group:
    count = int(spans.row_counts[members[0]])
    longest = int(spans.totals[members].max())
    padded = np.zeros((len(members), longest), dtype=np.int64)
    seen = np.zeros((len(members), count, longest), dtype=bool)
    for line, member in enumerate(members):
        padded[line, : spans.totals[member]] = places[member]
        # Padding repeats the request's own first place: what others keep cannot even be read.
        padded[line, spans.totals[member] :] = places[member][0]
        _see(batch, requests[member], int(spans.totals[member]), seen[line])
    rows = spans.row_starts[members][:, None] + np.arange(count)
    return Group(
        rows=torch.from_numpy(rows),
        places=torch.from_numpy(padded),
        seen=torch.from_numpy(seen),
    )


def _see(batch: BatchArrays, request: int, total: int, seen: Array) -> None:
    """Marks what each row of one request may read."""
    count = len(seen)
    if not batch.masked[request]:
        own = np.arange(total - count, total)
        seen[:, :total] = np.arange(total) <= own[:, None]
        return
    first = int(batch.row_indptr[request])
    for row in range(count):
        begin, end = batch.mask_indptr[first + row], batch.mask_indptr[first + row + 1]
        for start, stop in batch.mask_intervals[begin:end].tolist():
            seen[row, start:stop] = True
