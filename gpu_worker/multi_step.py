"""Several steps of a batch, one after the other, without a word from the controller.

After each step every sequence reads the token that it has just drawn. It ends when all steps are
done, when one of the sequences may be at its end or has no page to grow into, when a request has
failed, or when somebody calls. What was computed is told in parts, while the next step is due, and
what is left of it at the end. It must never execute a step twice, nor go on with a sequence whose
step has failed.
"""

from collections.abc import Callable

import attrs
import numpy as np

from gpu_worker.wire import BatchArrays, BatchResult, MultiStep
from gpu_worker.wire.arrays import Array

Execute = Callable[[BatchArrays], BatchResult]
Tell = Callable[[BatchResult], None]


def execute_steps(
    execute: Execute,
    page_size: int,
    batch: BatchArrays,
    is_called: Callable[[], bool],
    tell: Tell,
) -> BatchResult:
    """All steps of a batch; behind the first, only as long as nobody calls."""
    steps = Steps(batch, page_size)
    while steps.take(execute(steps.batch)) and not is_called():
        if steps.is_part_due:
            tell(steps.part())
    return steps.result()


@attrs.define(eq=False)
class Steps:
    """The step to be executed now, and what those before it have answered."""

    batch: BatchArrays  # behind the first step one of our own, written anew for each
    _page_size: int
    _plan: MultiStep | None = attrs.field(init=False)
    _seeds: Array = attrs.field(init=False)  # [step, request]
    _spare_used: Array = attrs.field(init=False)  # pages, of each request
    _results: list[BatchResult] = attrs.field(factory=list, init=False)  # not told yet
    _seconds: float = attrs.field(default=0.0, init=False)  # that those took
    _told: int = attrs.field(default=0, init=False)  # steps

    def __attrs_post_init__(self) -> None:
        self._plan = plan = self.batch.multi_step
        self._seeds = np.array(() if plan is None else plan.seeds, dtype=np.uint64).T
        self._spare_used = np.zeros(self.batch.request_count, dtype=np.int64)

    def take(self, result: BatchResult) -> bool:
        """Whether there is another step, which is the batch from now on."""
        self._results.append(result)
        self._seconds += result.step_seconds
        plan = self._plan
        if plan is None or self._executed >= plan.steps:
            return False
        pairs = zip(result.answers, plan.stops, strict=True)
        if any(a.error is not None or a.tokens[0] in stops for a, stops in pairs):
            return False
        return self._go_on(plan, [answer.tokens[0] for answer in result.answers])

    @property
    def _executed(self) -> int:
        return self._told + len(self._results)

    @property
    def is_part_due(self) -> bool:
        """Asked when another step follows."""
        plan = self._plan
        if plan is None or len(self._results) >= plan.part_steps:
            return plan is not None
        return self._seconds + self._results[-1].step_seconds > plan.part_seconds

    def part(self) -> BatchResult:
        """What has been answered since the last part; another step follows."""
        part = attrs.evolve(self.result(), goes_on=True)
        self._told, self._results, self._seconds = self._executed, [], 0.0
        return part

    def result(self) -> BatchResult:
        """The answers step by step, one of every request each time."""
        first, told = self._results[0], self._told
        if len(self._results) == 1 and not told:
            return first
        answers = tuple([answer for result in self._results for answer in result.answers])
        return attrs.evolve(first, step_seconds=self._seconds, answers=answers, first_step=told)

    def _go_on(self, plan: MultiStep, drawn: list[int]) -> bool:
        """False: a sequence has no page left to grow into."""
        step = self._executed - 1
        if step == 0:
            self.batch = _of_our_own(self.batch)
        batch = self.batch
        for counted in (batch.last_page_lengths, batch.positions):
            counted += 1
        batch.tokens[:] = drawn
        batch.seeds[:] = self._seeds[step]
        full = (batch.last_page_lengths > self._page_size).nonzero()[0]
        return not len(full) or self._grow(plan, full)

    def _grow(self, plan: MultiStep, full: Array) -> bool:
        """One more page for each of these requests, if all of them have one."""
        batch, used = self.batch, self._spare_used
        if any(len(plan.spare[i]) <= used[i] for i in full.tolist()):
            return False
        batch.last_page_lengths[full] = 1
        ends = batch.page_indptr
        grown = [plan.spare[i][used[i]] for i in full.tolist()]
        shift = np.searchsorted(full, np.arange(len(ends)))
        self.batch = attrs.evolve(
            batch,
            pages=np.insert(batch.pages, ends[full + 1], grown),
            page_indptr=(ends + shift).astype(ends.dtype, copy=False),
        )
        used[full] += 1
        return True


def _of_our_own(batch: BatchArrays) -> BatchArrays:
    """To write to; what is done once is done. What a message brought is only to be read."""
    return attrs.evolve(
        batch,
        copies=batch.copies[:0],
        tokens=batch.tokens.copy(),
        positions=batch.positions.copy(),
        last_page_lengths=batch.last_page_lengths.copy(),
        seeds=batch.seeds.copy(),
        lesson=None,
        multi_step=None,
        follows_up=True,
    )
