"""Which batches a worker may carry on by itself, how far, and what it needs for that.

Pure. Only sequences that go on without a look from anybody are decoded for several steps at once:
no mask, no penalties, no grammar, and nobody else is waiting. The steps end no later than the first
of them may, so that none is computed in vain. The worker tells of them chunk by chunk.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from gpu_worker import wire
from pie_trio.config import Limits
from pie_trio.decode import Decode
from pie_trio.messages import ForwardPass
from pie_trio.services.batch_policy import Chunk


def steps_of(
    chunks: Sequence[Chunk], limits: Limits, step_seconds: float, was_cut_short: bool
) -> int:
    """How many steps of this batch the worker may execute; 1 where it is to ask after each.

    Where the last ones were cut short, these are no more than a chunk.
    """
    seconds = limits.decode_chunk_seconds
    chunk = min(limits.decode_chunk_tokens, seconds / step_seconds if step_seconds else math.inf)
    if chunk < 2 or not chunks:
        return 1
    left = chunk if was_cut_short else limits.decode_steps_max
    for each in chunks:
        left = min(left, _steps_left(each.waiting.forward, limits))
        if left <= 1:
            return 1
    return int(left)


def _steps_left(forward: ForwardPass, limits: Limits) -> int:
    decode = forward.decode
    if decode is None or decode.is_first_due or len(forward.tokens) > 1:
        return 1
    if forward.mask is not None or forward.grammar is not None or decode.adjusting is not None:
        return 1
    if len(decode.rules.last_tokens) > limits.decode_stops_max:
        return 1
    return decode.steps_left(forward.page_size)


def multi_step(chunks: Iterable[Chunk], steps: int, limits: Limits) -> wire.MultiStep | None:
    """What the worker needs to know to execute so many, and to tell of them chunk by chunk."""
    if steps == 1:
        return None
    spare, seeds, stops = [], [], []
    for chunk in chunks:
        forward = chunk.waiting.forward
        decode = forward.decode
        assert decode is not None, "whoever is carried on is a sequence"
        pages, _ = decode.place(forward, steps - 1)
        spare.append(decode.pages[len(forward.pages) : pages])
        seeds.append(_seeds(forward, decode, steps))
        stops.append(decode.rules.last_tokens)
    part = (min(limits.decode_chunk_tokens, wire.STEPS_MAX), limits.decode_chunk_seconds)
    return wire.MultiStep(steps, *part, tuple(spare), tuple(seeds), tuple(stops))


def _seeds(forward: ForwardPass, decode: Decode, steps: int) -> tuple[int, ...]:
    """Of the steps behind the first; whoever is greedy draws nothing."""
    if forward.outputs[0].temperature == 0:
        return (0,) * (steps - 1)
    written = len(decode.tokens)
    return tuple([decode.seed_of(written + step) for step in range(1, steps)])
