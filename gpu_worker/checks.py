"""The last check before numbers become memory addresses.

Owns the rules of a well-formed request, evaluated for the whole batch at once. The engine has
checked all of this before: what is caught here is a bug of ours, and it must cost one request, not
the worker. It must never raise for a request, and never let an index out of its table through.
"""

from collections.abc import Iterator

import numpy as np

from gpu_worker.interface import Facts
from gpu_worker.wire import ADDEND_MAX, FACTOR_MAX, BatchArrays
from gpu_worker.wire.arrays import Array


def kv_totals(batch: BatchArrays, page_size: int) -> Array:
    """The KV slots of each request's context, its new rows included."""
    pages = np.diff(batch.page_indptr).astype(np.int64)
    return (pages - 1) * page_size + batch.last_page_lengths


def owners(indptr: Array) -> Array:
    """The number of the part that each element belongs to."""
    return np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))


def batch_error(batch: BatchArrays, facts: Facts) -> str | None:
    """Why nothing of this batch can be executed, if that is so."""
    if np.any((batch.copies < 0) | (batch.copies >= facts.pages)):
        return "a page copy names a page that does not exist"
    if len(batch.tokens) > facts.batch_tokens_max:
        return f"{len(batch.tokens)} rows are more than a batch takes ({facts.batch_tokens_max})"
    return None


def request_errors(batch: BatchArrays, facts: Facts) -> dict[int, str]:
    """The first broken rule of each request that breaks one."""
    errors: dict[int, str] = {}
    for text, broken in _broken(batch, facts):
        for request in broken.tolist():
            errors.setdefault(request, text)
    return errors


def _broken(batch: BatchArrays, facts: Facts) -> Iterator[tuple[str, Array]]:
    """Each rule, with the requests that break it (repeated as often as they do)."""
    request = np.arange(batch.request_count)
    rows = np.diff(batch.row_indptr)
    totals = kv_totals(batch, facts.page_size)
    lengths = batch.last_page_lengths
    yield "a request has no rows", request[rows == 0]
    yield (
        "the last page length is outside the page",
        request[(lengths < 1) | (lengths > facts.page_size)],
    )
    yield "the pages do not hold the rows", request[rows > totals]
    bad_pages = (batch.pages < 0) | (batch.pages >= facts.pages)
    yield "a page does not exist", owners(batch.page_indptr)[bad_pages]
    row_owner = owners(batch.row_indptr)
    bad_tokens = (batch.tokens >= facts.vocab_size) | (batch.tokens < -facts.embeddings)
    yield "a token is outside the vocabulary", row_owner[bad_tokens]
    yield "a position is negative", row_owner[batch.positions < 0]
    yield from _broken_masks(batch, row_owner, totals)
    yield from _broken_outputs(batch, rows, facts)


def _broken_masks(
    batch: BatchArrays, row_owner: Array, totals: Array
) -> Iterator[tuple[str, Array]]:
    row = owners(batch.mask_indptr)
    owner = row_owner[row]
    start, end = batch.mask_intervals.T
    yield "a mask lies outside the context", owner[(start < 0) | (end > totals[owner])]
    yield "a mask interval ends before it starts", owner[end < start]
    falls = (start[1:] < end[:-1]) & (row[1:] == row[:-1])
    yield "mask intervals overlap", owner[1:][falls]


def _broken_outputs(batch: BatchArrays, rows: Array, facts: Facts) -> Iterator[tuple[str, Array]]:
    owner = owners(batch.output_indptr)
    bad_rows = (batch.output_rows < 0) | (batch.output_rows >= rows[owner])
    yield "an output row does not exist", owner[bad_rows]
    bad_heat = ~np.isfinite(batch.temperatures) | (batch.temperatures < 0)
    yield "a temperature is not a number from nought up", owner[bad_heat]
    yield "top-k is negative", owner[batch.top_ks < 0]
    shares = np.stack((batch.top_ps, batch.min_ps))
    yield (
        "top-p and min-p lie between nought and one",
        owner[(~((shares >= 0) & (shares <= 1))).any(axis=0)],
    )
    bad_counts = (batch.logprobs < 0) | (batch.logprobs > facts.distribution_max + 1)
    yield "so many log-probabilities are not given", owner[bad_counts]
    if len(batch.adjustments):
        bad = _bad_adjustments(batch.adjustments, facts.vocab_size)
        yield "an adjustment is out of bounds", owner[owners(batch.adjustment_indptr)[bad]]
    if len(batch.written):
        bad = owners(batch.written_indptr)[batch.written < 0]
        yield "a text under a grammar has a token that is none", owner[bad]
    owner = owners(batch.embed_indptr)
    bad_rows = (batch.embed_rows < 0) | (batch.embed_rows >= rows[owner])
    bad_slots = (batch.embed_slots < 0) | (batch.embed_slots >= facts.embeddings)
    yield "an embedding output does not exist", owner[bad_rows | bad_slots]


def _bad_adjustments(adjustments: Array, vocab_size: int) -> Array:
    """So that an adjusted logit is finite where the logit was."""
    token, factor, addend = (adjustments[name] for name in ("f0", "f1", "f2"))
    bad_token = (token < 0) | (token >= vocab_size)
    good = (factor >= 1 / FACTOR_MAX) & (factor <= FACTOR_MAX) & (abs(addend) <= ADDEND_MAX)
    return np.asarray(bad_token | ~good)
