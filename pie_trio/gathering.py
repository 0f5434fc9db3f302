"""Whom the next batch waits for: the guests that the last one woke, until they are as far as then.

A loop that dispatched the first arrival at once would split a cohort of 32 into 1 + 31, and every
page boundary would split it further. A guest counts as awake until it waits for something, has
died, has used up a few CPU slices without submitting a pass, or has submitted as many passes as it
got answers: then it stands back until the batch has left, so that what it does before it waits
costs no time of the worker's. Who was seen to wait again almost at once is spared that: it would
only wait twice. Whoever submits more than its answers is not trusted the next time. Nothing here
decides about correctness: at worst a batch is smaller or a little later.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import trio

from pie_trio.config import Limits

# Steps of the scheduler until a guest that parks in passing is back, or a queue hands on. Where as
# many passes have arrived as there were answers, there is nobody to wait for.
HOPS = 2


@attrs.define
class _Member:
    """One guest of the cohort."""

    answers: int  # passes of it that the last batch answered
    submitted: int = 0
    arrived: int = 0  # of those; the others are still in their queues
    slices: int = 0  # CPU slices since it was woken or submitted
    runs_since: float | None = None  # it has submitted, stands back no more, and has yet to wait


class Gathering:
    """The cohort of one model loop."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._cohort: dict[int, _Member] = {}
        self._awake: set[int] = set()  # those of them that the batch waits for
        self._surprising: set[int] = set()  # they submitted more than they had got answers
        self._prompt: set[int] = set()  # they waited again almost at once after their last pass
        self._nobody_awake = trio.Event()
        self._has_left = trio.Event()  # the batch that was gathered last
        self._has_left.set()

    def begin(self, answers: Mapping[int, int]) -> None:
        """These are being given their answers now, so many each."""
        self._surprising.difference_update(
            [n for n, m in self._cohort.items() if m.submitted <= m.answers]
        )
        self._cohort = {number: _Member(count) for number, count in answers.items()}
        self._awake = set(answers)
        self._has_left = trio.Event()

    def parked(self, number: int) -> None:
        member = self._cohort.get(number)
        if member is not None and member.runs_since is not None:
            self._judge(number, trio.current_time() - member.runs_since)
            member.runs_since = None
        self._let_rest(number)

    def gone(self, number: int) -> None:
        """It has died."""
        self._let_rest(number)
        self._cohort.pop(number, None)
        self._surprising.discard(number)
        self._prompt.discard(number)

    def woke(self, number: int) -> None:
        if number in self._cohort and not self._has_left.is_set():
            self._awake.add(number)

    def submitted(self, number: int, now: float) -> None:
        """It works for this model: what it used up so far is forgiven."""
        member = self._cohort.get(number)
        if member is None:
            return
        member.slices = 0
        member.submitted += 1
        if number in self._prompt:
            member.runs_since = now
        if member.submitted > member.answers:
            self._surprising.add(number)

    def arrived(self, number: int) -> None:
        """A pass of it can be in the next batch."""
        member = self._cohort.get(number)
        if member is not None:
            member.arrived += 1

    async def stand_back(self, number: int) -> None:
        """After a pass. Cancelled: the pass is on its way all the same."""
        member = self._cohort.get(number)
        if member is None or member.submitted != member.answers:
            return
        if number in self._prompt or number in self._surprising or self._has_left.is_set():
            return
        self._let_rest(number)
        await self._has_left.wait()
        member.runs_since = trio.current_time()

    def used_slice(self, number: int) -> None:
        if number not in self._awake:
            return
        member = self._cohort[number]
        member.slices += 1
        if member.slices >= self._limits.gather_slices:
            del self._cohort[number]
            self._prompt.discard(number)
            self._let_rest(number)

    def _let_rest(self, number: int) -> None:
        self._awake.discard(number)
        if not self._awake:
            self._nobody_awake.set()

    def _judge(self, number: int, seconds: float) -> None:
        if seconds <= self._limits.gather_prompt_seconds:
            self._prompt.add(number)
        else:
            self._prompt.discard(number)

    async def wait(self, last_step_seconds: float) -> None:
        """Until nobody is awake, or for a small share of a step."""
        share = self._limits.gather_share * last_step_seconds
        with trio.move_on_after(max(share, self._limits.gather_seconds_min)):
            while self._awake:
                self._nobody_awake = trio.Event()
                await self._nobody_awake.wait()
                for _ in range(0 if self._is_whole() else HOPS):
                    await trio.lowlevel.checkpoint()

    def _is_whole(self) -> bool:
        return all(member.arrived >= member.answers for member in self._cohort.values())

    def end(self) -> None:
        """The batch is put together now; whoever stood back goes on when it is on its way."""
        self._awake.clear()
        self._has_left.set()
