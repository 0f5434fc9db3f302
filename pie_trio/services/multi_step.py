"""Which batches a worker may carry on by itself, how far, and what it needs for that.

Pure. Only sequences that go on without a look from anybody are decoded for several steps at once:
no mask, no penalties, no grammar, and nobody else is waiting. The steps end no later than the first
of them may, so that none is computed in vain, and about when the next chunk is due: what is left is
cut evenly, because around a crumb there is as much to do as around a whole chunk.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from gpu_worker import wire
from pie_trio.config import Limits
from pie_trio.messages import ForwardPass
from pie_trio.services.batch_policy import Chunk


def steps_of(chunks: Sequence[Chunk], limits: Limits, step_seconds: float) -> int:
    """How many steps of this batch the worker may execute; 1 where it is to ask after each."""
    seconds = limits.decode_chunk_seconds * (1 + limits.decode_chunk_slack)
    reach = min(limits.decode_steps_max, seconds / step_seconds if step_seconds else math.inf)
    if reach < 2 or not chunks:
        return 1
    left = math.inf
    for chunk in chunks:
        left = min(left, _steps_left(chunk.waiting.forward, limits))
        if left <= 1:
            return 1
    return math.ceil(left / math.ceil(left / reach))


def _steps_left(forward: ForwardPass, limits: Limits) -> int:
    decode = forward.decode
    if decode is None or decode.is_first_due or len(forward.tokens) > 1:
        return 1
    if forward.mask is not None or forward.grammar is not None or decode.adjusting is not None:
        return 1
    if len(decode.rules.last_tokens) > limits.decode_stops_max:
        return 1
    return decode.steps_left(forward.page_size)


def multi_step(chunks: Iterable[Chunk], steps: int) -> wire.MultiStep | None:
    """What the worker needs to know to execute so many."""
    if steps == 1:
        return None
    spare, seeds, stops = [], [], []
    for chunk in chunks:
        forward = chunk.waiting.forward
        decode = forward.decode
        assert decode is not None, "whoever is carried on is a sequence"
        pages, _ = decode.place(forward, steps - 1)
        spare.append(decode.pages[len(forward.pages) : pages])
        written = len(decode.tokens)
        seeds.append(tuple([decode.seed_of(written + step) for step in range(1, steps)]))
        stops.append(decode.rules.last_tokens)
    return wire.MultiStep(steps, tuple(spare), tuple(seeds), tuple(stops))
