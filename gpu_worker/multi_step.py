"""Several steps of a batch, one after the other, without a word from the controller.

After each step every sequence reads the token that it has just drawn. It ends when all steps are
done, when one of the sequences may be at its end or has no page to grow into, when a request has
failed, or when somebody calls; what was computed until then is one answer. It must never execute a
step twice, nor go on with a sequence whose step has failed.
"""

from collections.abc import Callable

import attrs
import numpy as np

from gpu_worker.wire import BatchArrays, BatchResult, MultiStep
from gpu_worker.wire.arrays import Array

Execute = Callable[[BatchArrays], BatchResult]


def execute_steps(
    execute: Execute, page_size: int, batch: BatchArrays, is_called: Callable[[], bool]
) -> BatchResult:
    """All steps of a batch; behind the first, only as long as nobody calls."""
    steps = Steps(batch, page_size)
    while steps.take(execute(steps.batch)) and not is_called():
        pass
    return steps.result()


@attrs.define(eq=False)
class Steps:
    """The step to be executed now, and what those before it have answered."""

    batch: BatchArrays
    _page_size: int
    _plan: MultiStep | None = attrs.field(init=False)
    _spare_used: Array = attrs.field(init=False)  # pages, of each request
    _results: list[BatchResult] = attrs.field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self._plan = self.batch.multi_step
        self._spare_used = np.zeros(self.batch.request_count, dtype=np.int64)

    def take(self, result: BatchResult) -> bool:
        """Whether there is another step, which is the batch from now on."""
        self._results.append(result)
        plan = self._plan
        if plan is None or len(self._results) >= plan.steps:
            return False
        pairs = zip(result.answers, plan.stops, strict=True)
        if any(a.error is not None or a.tokens[0] in stops for a, stops in pairs):
            return False
        following = self._following(plan, result)
        if following is None:
            return False
        self.batch = following
        return True

    def result(self) -> BatchResult:
        """The answers step by step, one of every request each time."""
        first = self._results[0]
        if len(self._results) == 1:
            return first
        seconds = sum(result.step_seconds for result in self._results)
        answers = tuple([answer for result in self._results for answer in result.answers])
        return attrs.evolve(first, step_seconds=seconds, answers=answers)

    def _following(self, plan: MultiStep, result: BatchResult) -> BatchArrays | None:
        """None: a sequence has no page left to grow into."""
        batch, step = self.batch, len(self._results) - 1
        lengths = batch.last_page_lengths + 1
        full = (lengths > self._page_size).nonzero()[0]
        lengths[full] = 1
        pages, ends = batch.pages, batch.page_indptr
        if len(full):
            if any(len(plan.spare[i]) <= self._spare_used[i] for i in full.tolist()):
                return None
            grown = [plan.spare[i][self._spare_used[i]] for i in full.tolist()]
            pages = np.insert(pages, ends[full + 1], grown)
            ends = ends + np.searchsorted(full, np.arange(len(ends)))
            self._spare_used[full] += 1
        return attrs.evolve(
            batch,
            copies=batch.copies[:0],
            tokens=np.array([answer.tokens[0] for answer in result.answers], dtype=np.int32),
            positions=batch.positions + 1,
            pages=pages,
            page_indptr=ends.astype(batch.page_indptr.dtype, copy=False),
            last_page_lengths=lengths,
            seeds=np.array([seeds[step] for seeds in plan.seeds], dtype=np.uint64),
            lesson=None,
            multi_step=None,
        )
