"""run_pass: computes pending tokens of a sequence into its pages, by one forward pass.

Pages are allocated as they are needed. Cancelled: the sequence holds what it held before; the pass
may still run, and what it writes is written again by the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from inferlet.forward import ForwardPass, PassResult

if TYPE_CHECKING:
    from inferlet.queue import Queue
    from inferlet.sequence import TokenSequence


async def run_pass(
    forward_pass: ForwardPass,
    queue: Queue,
    sequence: TokenSequence,
    end: int,
    ask: Callable[[ForwardPass, int], None],
) -> PassResult:
    """An empty pass of this queue, over the pending tokens before `end`; `ask` says what to ask of
    the last one."""
    start, size = sequence.held, sequence.page_size
    if end <= start:
        raise RuntimeError("nothing is pending: fill the context first")
    pages_needed = -(-end // size)
    if pages_needed > len(sequence.pages):
        sequence.pages += queue.allocate_pages(pages_needed - len(sequence.pages))
    forward_pass.kv_cache(sequence.pages[:pages_needed], (end - 1) % size + 1)
    forward_pass.input_tokens(sequence.tokens[start:end], sequence.positions[start:end])
    rows = sequence.visibility.rows(start, end)
    if rows is not None:
        forward_pass.attention_mask(rows)
    ask(forward_pass, end - start - 1)
    result = await forward_pass.execute()
    if not result.tokens and not result.distributions:
        await queue.synchronize()
    sequence.held = end
    return result
