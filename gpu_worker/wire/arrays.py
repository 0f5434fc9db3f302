"""A batch as compressed sparse rows: how it travels and what an executor reads.

Owns the frame layout of a batch, whose requests may be encoded long before it is put together
(`fragments`), and checks its structure once, on arrival: every index pointer starts at nought,
never falls and ends at the length of what it points into. What is *in* the arrays (page numbers,
token ids, intervals) is the executor's to judge, one request at a time.
It must never copy what can be a view, nor handle integers one by one on the worker's side.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate, chain
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from gpu_worker.wire.errors import WireError
from gpu_worker.wire.fragments import COLUMNS, pack
from gpu_worker.wire.grammars import Lesson
from gpu_worker.wire.messages import Batch, Request
from gpu_worker.wire.multi_step import MultiStep
from gpu_worker.wire.outputs import ADJUSTMENT_KIND, OutputRow, SamplerKind

Frame = bytes | bytearray | memoryview
Array = npt.NDArray[Any]
LAST_SAMPLER = max(SamplerKind)

# name, little-endian type: the order of the frames that follow the header of a batch.
BATCH_FRAMES = (
    ("copies", "<i4"),
    ("tokens", "<i4"),
    ("positions", "<i4"),
    ("row_indptr", "<i4"),
    ("pages", "<i4"),
    ("page_indptr", "<i4"),
    ("last_page_lengths", "<i4"),
    ("seeds", "<u8"),
    ("masked", "|u1"),
    ("mask_indptr", "<i4"),
    ("mask_intervals", "<i4"),
    ("output_indptr", "<i4"),
    ("output_rows", "<i4"),
    ("output_kinds", "|u1"),
    ("temperatures", "<f4"),
    ("top_ks", "<i4"),
    ("top_ps", "<f4"),
    ("min_ps", "<f4"),
    ("logprobs", "<i4"),
    ("adjustment_indptr", "<i4"),
    ("adjustments", ADJUSTMENT_KIND),
    ("written_indptr", "<i4"),
    ("written", "<i4"),
    ("embed_indptr", "<i4"),
    ("embed_rows", "<i4"),
    ("embed_slots", "<i4"),
)
# index pointer -> the arrays that it cuts into one part per request
_INDEX_POINTERS = {
    "row_indptr": ("tokens", "positions"),
    "page_indptr": ("pages",),
    "output_indptr": (
        "output_rows",
        "output_kinds",
        "temperatures",
        "top_ks",
        "top_ps",
        "min_ps",
        "logprobs",
    ),
    "embed_indptr": ("embed_rows", "embed_slots"),
}


@attrs.frozen(eq=False)
class BatchArrays:
    """One batch. `mask_indptr` has one part per row, in pairs; rows of unmasked requests are
    empty. `adjustment_indptr` and `written_indptr` have one part per output. A batch that follows
    up is a later one of several steps, made by the worker itself; none arrives as such.
    """

    generation: int
    number: int
    copies: Array
    tokens: Array
    positions: Array
    row_indptr: Array
    pages: Array
    page_indptr: Array
    last_page_lengths: Array
    seeds: Array
    masked: Array
    mask_indptr: Array
    mask_intervals: Array
    output_indptr: Array
    output_rows: Array
    output_kinds: Array
    temperatures: Array
    top_ks: Array
    top_ps: Array
    min_ps: Array
    logprobs: Array
    adjustment_indptr: Array
    adjustments: Array
    written_indptr: Array
    written: Array
    embed_indptr: Array
    embed_rows: Array
    embed_slots: Array
    lesson: Lesson | None = None
    multi_step: MultiStep | None = None
    follows_up: bool = False

    @property
    def request_count(self) -> int:
        return len(self.last_page_lengths)

    @property
    def is_repeatable(self) -> bool:
        """Whether the token of each request can be the row of its next step."""
        once = np.arange(self.request_count + 1)
        return (
            np.array_equal(self.row_indptr, once)
            and np.array_equal(self.output_indptr, once)
            and not np.any(self.output_kinds == SamplerKind.DISTRIBUTION)
            and not any(map(len, (self.mask_intervals, self.written, self.embed_rows)))
            and not (np.any(self.masked) or len(self.adjustments))
        )

    def to_batch(self) -> Batch:
        """Back to requests, one integer at a time: for pretend executors and tests."""
        copies = tuple((int(source), int(target)) for source, target in self.copies)
        requests = tuple(self.request(index) for index in range(self.request_count))
        return Batch(self.generation, self.number, copies, requests, self.lesson, self.multi_step)

    def request(self, index: int) -> Request:
        rows = _part(self.row_indptr, index)
        embeds = _part(self.embed_indptr, index)
        return Request(
            tokens=tuple(self.tokens[rows].tolist()),
            positions=tuple(self.positions[rows].tolist()),
            pages=tuple(self.pages[_part(self.page_indptr, index)].tolist()),
            last_page_length=int(self.last_page_lengths[index]),
            mask=self._mask(rows) if self.masked[index] else None,
            outputs=tuple(self.output(i) for i in _range(self.output_indptr, index)),
            embed_outputs=tuple(
                zip(
                    self.embed_rows[embeds].tolist(), self.embed_slots[embeds].tolist(), strict=True
                )
            ),
            seed=int(self.seeds[index]),
        )

    def _mask(self, rows: slice) -> tuple[tuple[int, ...], ...]:
        return tuple(
            tuple(self.mask_intervals[_part(self.mask_indptr, row)].ravel().tolist())
            for row in range(rows.start, rows.stop)
        )

    def output(self, index: int) -> OutputRow:
        return OutputRow(
            row=int(self.output_rows[index]),
            kind=SamplerKind(int(self.output_kinds[index])),
            temperature=float(self.temperatures[index]),
            top_k=int(self.top_ks[index]),
            top_p=float(self.top_ps[index]),
            min_p=float(self.min_ps[index]),
            logprobs=int(self.logprobs[index]),
            adjustments=self.adjustments[_part(self.adjustment_indptr, index)].tobytes(),
            written=self.text_written(index),
        )

    def text_written(self, index: int) -> bytes:
        """Of an output, as `OutputRow.written`."""
        written: bytes = self.written[_part(self.written_indptr, index)].tobytes()
        return written


def _part(indptr: Array, index: int) -> slice:
    return slice(int(indptr[index]), int(indptr[index + 1]))


def _range(indptr: Array, index: int) -> range:
    return range(int(indptr[index]), int(indptr[index + 1]))


def batch_frames(batch: Batch) -> list[bytes]:
    """The frames behind the header. A value that its type cannot hold raises `WireError`."""
    columns = _columns(batch)
    return [columns[name] for name, _ in BATCH_FRAMES]


def _columns(batch: Batch) -> dict[str, bytes]:
    """Joins what is encoded already; only the index pointers are made here."""
    requests = batch.requests
    fragments = [request.fragment for request in requests]
    joined = map(b"".join, zip(*[fragment.columns for fragment in fragments], strict=True))
    columns = dict.fromkeys(COLUMNS, b"") | dict(zip(COLUMNS, joined, strict=False))
    rows = [fragment.rows for fragment in fragments]
    intervals = [fragment.intervals or (0,) * fragment.rows for fragment in fragments]
    adjusted = [fragment.adjustments or (0,) * fragment.outputs for fragment in fragments]
    written = [fragment.written or (0,) * fragment.outputs for fragment in fragments]
    return columns | {
        "copies": pack("i", [*chain.from_iterable(batch.copies)]),
        "row_indptr": indptr(rows),
        "page_indptr": indptr([fragment.pages for fragment in fragments]),
        "last_page_lengths": pack("i", [request.last_page_length for request in requests]),
        "seeds": pack("Q", [request.seed for request in requests]),
        "masked": pack("B", [request.mask is not None for request in requests]),
        "mask_indptr": indptr([*chain.from_iterable(intervals)]),
        "output_indptr": indptr([fragment.outputs for fragment in fragments]),
        "adjustment_indptr": indptr([*chain.from_iterable(adjusted)]),
        "written_indptr": indptr([*chain.from_iterable(written)]),
        "embed_indptr": indptr([fragment.embeds for fragment in fragments]),
    }


def indptr(lengths: Iterable[int]) -> bytes:
    """Where the part of each begins, and where the last one ends."""
    return pack("i", [*accumulate(lengths, initial=0)])


def read_batch(
    generation: int, number: int, lesson: Lesson | None, frames: Sequence[Frame]
) -> BatchArrays:
    """Views into the frames, checked for structure."""
    if len(frames) != len(BATCH_FRAMES):
        raise WireError(
            f"a batch has {len(BATCH_FRAMES)} frames after its header, not {len(frames)}"
        )
    columns: dict[str, Any] = {
        name: read_array(name, kind, frame)
        for (name, kind), frame in zip(BATCH_FRAMES, frames, strict=True)
    }
    for name in ("copies", "mask_intervals"):
        columns[name] = _in_pairs(name, columns[name])
    _check_structure(columns)
    return BatchArrays(generation=generation, number=number, lesson=lesson, **columns)


def read_array(name: str, kind: str, frame: Frame) -> Array:
    if len(frame) % np.dtype(kind).itemsize:
        raise WireError(f"frame {name!r} is cut within a value")
    return np.frombuffer(frame, dtype=kind)


def _in_pairs(name: str, values: Array) -> Array:
    if len(values) % 2:
        raise WireError(f"frame {name!r} is cut within a pair")
    return values.reshape(-1, 2)


def _check_structure(columns: dict[str, Array]) -> None:
    requests = len(columns["last_page_lengths"])
    for name in ("seeds", "masked"):
        if len(columns[name]) != requests:
            raise WireError(f"frame {name!r} has {len(columns[name])} values, not {requests}")
    for name, targets in _INDEX_POINTERS.items():
        ends = columns[name].tolist()
        for target in targets:
            check_indptr(name, ends, requests, len(columns[target]))
    rows = len(columns["tokens"])
    mask_indptr = columns["mask_indptr"].tolist()
    check_indptr("mask_indptr", mask_indptr, rows, len(columns["mask_intervals"]))
    outputs, adjusted = len(columns["output_rows"]), len(columns["adjustments"])
    check_indptr("adjustment_indptr", columns["adjustment_indptr"].tolist(), outputs, adjusted)
    written_indptr = columns["written_indptr"].tolist()
    check_indptr("written_indptr", written_indptr, outputs, len(columns["written"]))
    if np.any(columns["output_kinds"] > LAST_SAMPLER):
        raise WireError("frame 'output_kinds' names an unknown sampler")
    if np.any(columns["masked"] > 1):
        raise WireError("frame 'masked' holds something else than nought and one")


def check_indptr(name: str, ends: Sequence[int], parts: int, total: int) -> None:
    if len(ends) != parts + 1 or ends[0] != 0 or ends[-1] != total:
        raise WireError(f"frame {name!r} does not span its {parts} parts and {total} values")
    if ends != sorted(ends):  # cheaper than a comparison by numpy for a few, and not dear for many
        raise WireError(f"frame {name!r} falls")
