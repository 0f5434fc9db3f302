"""The last check before numbers become memory addresses.

Owns the rules of a well-formed request, evaluated for the whole batch at once. The engine has
checked all of this before: what is caught here is a bug of ours, and it must cost one request, not
the worker. Several steps are judged with the first: the others only grow, and read what was drawn
here. It must never raise for a request, and never let an index out of its table through.
"""

from collections.abc import Iterator

import numpy as np

from gpu_worker.interface import Facts
from gpu_worker.wire import ADDEND_MAX, FACTOR_MAX, BatchArrays, MultiStep
from gpu_worker.wire.arrays import Array

NOBODY = np.zeros(0, dtype=np.int64)
POSITION_MAX = np.iinfo(np.int32).max


def lengths_of(indptr: Array) -> Array:
    """How many elements each part has."""
    lengths: Array = indptr[1:] - indptr[:-1]
    return lengths


def kv_totals(batch: BatchArrays, page_size: int) -> Array:
    """The KV slots of each request's context, its new rows included."""
    pages = lengths_of(batch.page_indptr).astype(np.int64)
    return (pages - 1) * page_size + batch.last_page_lengths


def owners(indptr: Array) -> Array:
    """The number of the part that each element belongs to."""
    return np.arange(len(indptr) - 1).repeat(lengths_of(indptr))


def batch_error(batch: BatchArrays, facts: Facts) -> str | None:
    """Why nothing of this batch can be executed, if that is so."""
    if len(batch.copies) and _are_outside(batch.copies, facts.pages).any():
        return "a page copy names a page that does not exist"
    if len(batch.tokens) > facts.batch_tokens_max:
        return f"{len(batch.tokens)} rows are more than a batch takes ({facts.batch_tokens_max})"
    return None


def request_errors(batch: BatchArrays, facts: Facts) -> dict[int, str]:
    """The first broken rule of each request that breaks one."""
    errors: dict[int, str] = {}
    if batch.follows_up:
        return errors
    for text, broken in _broken(batch, facts):
        for request in broken.tolist():
            errors.setdefault(request, text)
    return errors


def _broken(batch: BatchArrays, facts: Facts) -> Iterator[tuple[str, Array]]:
    """Each rule, with the requests that break it (repeated as often as they do)."""
    rows = lengths_of(batch.row_indptr)
    totals = kv_totals(batch, facts.page_size)
    yield "a request has no rows", (rows == 0).nonzero()[0]
    lengths = batch.last_page_lengths
    bad_lengths = (lengths < 1) | (lengths > facts.page_size)
    yield "the last page length is outside the page", bad_lengths.nonzero()[0]
    yield "the pages do not hold the rows", (rows > totals).nonzero()[0]
    bad_pages = _are_outside(batch.pages, facts.pages)
    yield "a page does not exist", _owners_of(bad_pages, batch.page_indptr)
    bad_tokens = (batch.tokens >= facts.vocab_size) | (batch.tokens < -facts.embeddings)
    yield "a token is outside the vocabulary", _owners_of(bad_tokens, batch.row_indptr)
    yield "a position is negative", _owners_of(batch.positions < 0, batch.row_indptr)
    if batch.multi_step is not None:
        yield from _broken_later(batch, batch.multi_step, facts)
    if len(batch.mask_intervals):
        yield from _broken_masks(batch, totals)
    yield from _broken_outputs(batch, rows, facts)
    if len(batch.embed_rows):
        bad_rows = _are_outside(batch.embed_rows, rows.repeat(lengths_of(batch.embed_indptr)))
        bad_slots = _are_outside(batch.embed_slots, facts.embeddings)
        bad_embeds = _owners_of(bad_rows | bad_slots, batch.embed_indptr)
        yield "an embedding output does not exist", bad_embeds


def _are_outside(indices: Array, count: int | Array) -> Array:
    """Those below nought count as too large."""
    return np.asarray(indices.view(np.uint32) >= count)


def _owners_of(broken: Array, indptr: Array) -> Array:
    return owners(indptr)[broken] if broken.any() else NOBODY


def _broken_later(batch: BatchArrays, more: MultiStep, facts: Facts) -> Iterator[tuple[str, Array]]:
    """Of the steps behind the first: the places that they write, and their positions."""
    bad_spare = [any(page >= facts.pages for page in pages) for pages in more.spare]
    yield "a page to grow into does not exist", np.flatnonzero(bad_spare)
    bad_positions = batch.positions > POSITION_MAX - more.steps
    yield "a position is too large to go on", _owners_of(bad_positions, batch.row_indptr)


def _broken_masks(batch: BatchArrays, totals: Array) -> Iterator[tuple[str, Array]]:
    row = owners(batch.mask_indptr)
    owner = owners(batch.row_indptr)[row]
    start, end = batch.mask_intervals.T
    yield "a mask lies outside the context", owner[(start < 0) | (end > totals[owner])]
    yield "a mask interval ends before it starts", owner[end < start]
    falls = (start[1:] < end[:-1]) & (row[1:] == row[:-1])
    yield "mask intervals overlap", owner[1:][falls]


def _broken_outputs(batch: BatchArrays, rows: Array, facts: Facts) -> Iterator[tuple[str, Array]]:
    indptr = batch.output_indptr
    bad_rows = _are_outside(batch.output_rows, rows.repeat(lengths_of(indptr)))
    yield "an output row does not exist", _owners_of(bad_rows, indptr)
    heat = batch.temperatures
    bad_heat = _owners_of(~((heat >= 0) & (heat < np.inf)), indptr)
    yield "a temperature is not a number from nought up", bad_heat
    yield "top-k is negative", _owners_of(batch.top_ks < 0, indptr)
    bad_shares = ~(_are_shares(batch.top_ps) & _are_shares(batch.min_ps))
    yield "top-p and min-p lie between nought and one", _owners_of(bad_shares, indptr)
    bad_counts = _are_outside(batch.logprobs, facts.distribution_max + 2)
    yield "so many log-probabilities are not given", _owners_of(bad_counts, indptr)
    if len(batch.adjustments):
        bad = _bad_adjustments(batch.adjustments, facts.vocab_size)
        bad_outputs = owners(batch.adjustment_indptr)[bad]
        yield "an adjustment is out of bounds", owners(indptr)[bad_outputs]
    if len(batch.written):
        bad_outputs = owners(batch.written_indptr)[batch.written < 0]
        yield "a text under a grammar has a token that is none", owners(indptr)[bad_outputs]


def _are_shares(values: Array) -> Array:
    return np.asarray((values >= 0) & (values <= 1))


def _bad_adjustments(adjustments: Array, vocab_size: int) -> Array:
    """So that an adjusted logit is finite where the logit was."""
    token, factor, addend = (adjustments[name] for name in ("f0", "f1", "f2"))
    bad_token = (token < 0) | (token >= vocab_size)
    good = (factor >= 1 / FACTOR_MAX) & (factor <= FACTOR_MAX) & (abs(addend) <= ADDEND_MAX)
    return np.asarray(bad_token | ~good)
