"""Whom the next batch waits for: the guests that the last one woke, until they are as far as then.

A loop that dispatched the first arrival at once would split a cohort of 32 into 1 + 31, and every
page boundary would split it further. A guest counts as awake until it waits for something, has
died, has used up a few CPU slices without submitting a pass, or has submitted as many passes as it
got answers: then it stands back until the batch has left, so that what it does before it waits
costs no time of the worker's. Whoever submits more than that is not trusted the next time. Nothing
here decides about correctness: at worst a batch is smaller or a little later.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import trio

from pie_trio.config import Limits

# Steps of the scheduler until a guest that parks in passing is back, or a queue hands on.
HOPS = 2


@attrs.define
class _Member:
    """One guest of the cohort."""

    answers: int  # passes of it that the last batch answered
    submitted: int = 0
    slices: int = 0  # CPU slices since it was woken or submitted


class Gathering:
    """The cohort of one model loop."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._cohort: dict[int, _Member] = {}
        self._awake: set[int] = set()  # those of them that the batch waits for
        self._surprising: set[int] = set()  # they submitted more than they had got answers
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
        self._awake.discard(number)
        if not self._awake:
            self._nobody_awake.set()

    def gone(self, number: int) -> None:
        """It has died."""
        self.parked(number)
        self._cohort.pop(number, None)
        self._surprising.discard(number)

    def woke(self, number: int) -> None:
        if number in self._cohort and not self._has_left.is_set():
            self._awake.add(number)

    def submitted(self, number: int) -> None:
        """It works for this model: what it used up so far is forgiven."""
        member = self._cohort.get(number)
        if member is None:
            return
        member.slices = 0
        member.submitted += 1
        if member.submitted > member.answers:
            self._surprising.add(number)

    async def stand_back(self, number: int) -> None:
        """After a pass. Cancelled: the pass is on its way all the same."""
        member = self._cohort.get(number)
        if member is None or member.submitted != member.answers or number in self._surprising:
            return
        if not self._has_left.is_set():
            self.parked(number)
            await self._has_left.wait()

    def used_slice(self, number: int) -> None:
        if number not in self._awake:
            return
        member = self._cohort[number]
        member.slices += 1
        if member.slices >= self._limits.gather_slices:
            del self._cohort[number]
            self.parked(number)

    async def wait(self, last_step_seconds: float) -> None:
        """Until nobody is awake, or for a small share of a step."""
        share = self._limits.gather_share * last_step_seconds
        with trio.move_on_after(max(share, self._limits.gather_seconds_min)):
            while self._awake:
                self._nobody_awake = trio.Event()
                await self._nobody_awake.wait()
                for _ in range(HOPS):
                    await trio.lowlevel.checkpoint()

    def end(self) -> None:
        """The batch is put together now; whoever stood back goes on when it is on its way."""
        self._awake.clear()
        self._has_left.set()
