"""One request as bytes, ready to be joined with others to a batch.

Owns the columns that a request contributes and their checks: a value that its type cannot hold
raises `WireError` here, at whoever asks for it, and never costs a batch that others share.
Pure; a fragment is made once, as soon as its request is known, and joined as often as need be.
It must never handle the integers of a long column one by one.
"""

from __future__ import annotations

import struct
from itertools import chain
from typing import TYPE_CHECKING, Any

import attrs

from gpu_worker.wire.errors import WireError
from gpu_worker.wire.outputs import ADJUSTMENT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gpu_worker.wire.messages import Request
    from gpu_worker.wire.outputs import OutputRow

# The columns of a fragment in the order in which it holds them, by their frames' names.
COLUMNS = (
    "tokens",
    "positions",
    "pages",
    "mask_intervals",
    "output_rows",
    "output_kinds",
    "temperatures",
    "top_ks",
    "top_ps",
    "min_ps",
    "logprobs",
    "adjustments",
    "written",
    "embed_rows",
    "embed_slots",
)

_INT, _BYTE, _FLOAT = struct.Struct("<i"), struct.Struct("<B"), struct.Struct("<f")


@attrs.frozen(eq=False)
class Fragment:
    """The columns, little-endian, and how many rows, pages, outputs and embeddings they have."""

    columns: tuple[bytes, ...]
    rows: int
    pages: int
    outputs: int
    embeds: int
    intervals: tuple[int, ...]  # of each row; empty: the request has no mask
    adjustments: tuple[int, ...]  # of each output; empty: none
    written: tuple[int, ...]  # the same


def fragment_of(request: Request) -> Fragment:
    """Raises `WireError`."""
    rows = len(request.tokens)
    if len(request.positions) != rows:
        raise WireError("a request needs one position for each token")
    _check_scalars(request)
    if rows == len(request.outputs) == 1 and request.mask is None and not request.embed_outputs:
        return _one_row(request)
    mask, outputs, embeds = _checked_mask(request), request.outputs, request.embed_outputs
    columns = (
        pack("i", request.tokens),
        pack("i", request.positions),
        pack("i", request.pages),
        pack("i", [*chain.from_iterable(mask)]),
        pack("i", [output.row for output in outputs]),
        pack("B", [output.kind for output in outputs]),
        pack("f", [output.temperature for output in outputs]),
        pack("i", [output.top_k for output in outputs]),
        pack("f", [output.top_p for output in outputs]),
        pack("f", [output.min_p for output in outputs]),
        pack("i", [output.logprobs for output in outputs]),
        b"".join([output.adjustments for output in outputs]),
        b"".join([output.written for output in outputs]),
        pack("i", [row for row, _ in embeds]),
        pack("i", [slot for _, slot in embeds]),
    )
    intervals = tuple([len(row) // 2 for row in mask])
    return Fragment(
        columns,
        rows,
        len(request.pages),
        len(outputs),
        len(embeds),
        intervals,
        adjustment_counts(outputs),
        written_counts(outputs),
    )


def _one_row(request: Request) -> Fragment:
    """The same for a step of decoding, the most frequent request by far."""
    (output,) = request.outputs
    try:
        columns = (
            _INT.pack(request.tokens[0]),
            _INT.pack(request.positions[0]),
            pack("i", request.pages),
            b"",
            _INT.pack(output.row),
            _BYTE.pack(output.kind),
            _FLOAT.pack(output.temperature),
            _INT.pack(output.top_k),
            _FLOAT.pack(output.top_p),
            _FLOAT.pack(output.min_p),
            _INT.pack(output.logprobs),
            output.adjustments,
            output.written,
            b"",
            b"",
        )
    except (struct.error, OverflowError, TypeError) as error:
        raise WireError(f"a number does not fit its column: {error}") from error
    adjusted = adjustment_counts(request.outputs) if output.adjustments else ()
    written = written_counts(request.outputs) if output.written else ()
    return Fragment(columns, 1, len(request.pages), 1, 0, (), adjusted, written)


def adjustment_counts(outputs: Sequence[OutputRow]) -> tuple[int, ...]:
    """Of each output; empty when nobody adjusts anything."""
    lengths = [len(output.adjustments) for output in outputs]
    if not any(lengths):
        return ()
    if any(length % ADJUSTMENT.size for length in lengths):
        raise WireError("an adjustment is cut")
    return tuple([length // ADJUSTMENT.size for length in lengths])


def written_counts(outputs: Sequence[OutputRow]) -> tuple[int, ...]:
    """Of each output, the number of its grammar included; empty when there is no grammar."""
    lengths = [len(output.written) for output in outputs]
    if not any(lengths):
        return ()
    if any(length % _INT.size for length in lengths):
        raise WireError("a text under a grammar is cut")
    return tuple([length // _INT.size for length in lengths])


def pack(code: str, values: Iterable[Any]) -> bytes:
    """Little-endian numbers of one type."""
    values = values if isinstance(values, (tuple, list)) else [*values]
    if not values:
        return b""
    try:
        return struct.pack(f"<{len(values)}{code}", *values)
    except (struct.error, OverflowError, TypeError) as error:
        raise WireError(f"a number does not fit its column: {error}") from error


def _check_scalars(request: Request) -> None:
    if not 0 <= request.seed < 1 << 64 or not 0 <= request.last_page_length < 1 << 31:
        raise WireError("the seed or the last page's length does not fit its column")


def _checked_mask(request: Request) -> Sequence[Sequence[int]]:
    mask = request.mask
    if mask is None:
        return ()
    if len(mask) != len(request.tokens):
        raise WireError("a mask needs one row for each token")
    if any(len(row) % 2 for row in mask):
        raise WireError("a mask row needs an end for each start")
    return mask
