"""Whether what a worker says can be true: its greeting, and its answers to a batch, part by part.

Pure. A worker is another process and may be broken: what passes here is handed to guests and
indexes tables. The texts complete a sentence that begins with "worker lost".
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle

import attrs

from gpu_worker import wire

PAGES_MAX = 1 << 24
OnPart = Callable[[wire.BatchResult], object]


def in_one(part: wire.BatchResult) -> None:
    """For a batch that is not told in parts."""
    raise AssertionError(f"batch {part.number} was to be answered in one")


@attrs.define(eq=False)
class Parts:
    """Of the answers to one batch: who hears of those that others follow, and who of the last."""

    batch: wire.Batch
    on_part: OnPart
    on_end: OnPart
    _steps_told: int = attrs.field(default=0, init=False)

    def take(self, result: wire.BatchResult, vocab_size: int) -> str | None:
        """Hands it on; or why it cannot be the answer to that batch."""
        if result.first_step < self._steps_told:
            return None  # it has come before
        if result.first_step > self._steps_told:
            return "a part of its answers is missing"
        fault = result_fault(self.batch, result, vocab_size)
        if fault is None and result.goes_on:
            self._steps_told += len(result.answers) // len(self.batch.requests)
            self.on_part(result)
        elif fault is None:
            self.on_end(result)
        return fault


def greeting_fault(hello: wire.Hello, granted: wire.WorkerLimits) -> str | None:
    """Why a worker cannot be used, if that is so."""
    if hello.protocol != wire.PROTOCOL:
        return f"it speaks protocol {hello.protocol}, this engine {wire.PROTOCOL}"
    if hello.page_size != granted.page_size:
        return f"it says that its pages have {hello.page_size} tokens, not {granted.page_size}"
    pages_max = PAGES_MAX if granted.pages_max is None else granted.pages_max
    if not 1 <= hello.pages <= pages_max:
        return f"it says that it has {hello.pages} pages; at least 1, at most {pages_max}"
    if hello.embeddings > granted.embeddings:
        return f"it says that it has {hello.embeddings} embeddings, not {granted.embeddings}"
    if min(hello.batch_tokens_max, hello.vocab_size) < 1:
        return "it says that it takes no tokens"
    return None


def result_fault(batch: wire.Batch, result: wire.BatchResult, vocab_size: int) -> str | None:
    """Why these cannot be the answers to that batch, if that is so."""
    requests, answers = len(batch.requests), len(result.answers)
    steps = answers // requests if requests else 1
    steps_max = batch.multi_step.steps if batch.multi_step else 1
    left = steps_max - result.first_step
    if answers != steps * requests or not 1 <= steps <= left - result.goes_on:
        return f"it answered {answers} of {requests} requests, of which each has {steps_max} steps"
    if result.goes_on and any(answer.error is not None for answer in result.answers):
        return "it answered a request with an error and goes on"
    for request, answer in zip(cycle(batch.requests), result.answers, strict=False):
        if answer.error is None and not _fits(request, answer, vocab_size):
            return "it answered a request with something else than what was asked"
    return None


def _fits(request: wire.Request, answer: wire.Answer, vocab_size: int) -> bool:
    if len(request.outputs) == 1 and not request.outputs[0].wants_list:  # a step of decoding
        return len(answer.tokens) == 1 and _is_plain(answer, vocab_size)
    heads = sum(output.kind is wire.SamplerKind.DISTRIBUTION for output in request.outputs)
    lists = [output for output in request.outputs if output.wants_list]
    return (
        len(answer.tokens) == len(request.outputs) - heads
        and len(answer.distributions) == len(lists)
        and _are_tokens(answer.tokens, vocab_size)
        and all(_are_tokens(ids, vocab_size) for ids, _ in answer.distributions)
        and all(
            bool(ids) or output.kind is wire.SamplerKind.DISTRIBUTION
            for output, (ids, _) in zip(lists, answer.distributions, strict=True)
        )
    )


def _is_plain(answer: wire.Answer, vocab_size: int) -> bool:
    return not answer.distributions and 0 <= answer.tokens[0] < vocab_size


def _are_tokens(ids: tuple[int, ...] | list[int], vocab_size: int) -> bool:
    return not ids or (min(ids) >= 0 and max(ids) < vocab_size)
