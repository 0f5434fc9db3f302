"""Whom the next batch waits for: the guests that the last one woke, until they park or compute.

A loop that dispatched the first arrival at once would split a cohort of 32 into 1 + 31, and every
page boundary would split it further. A guest counts as awake until it waits for something, has
died, or has used up a few CPU slices without submitting a pass. Nothing here decides about
correctness: at worst a batch is smaller or a little later.
"""

from __future__ import annotations

from collections import Counter

import trio

from pie_trio.config import Limits

# Steps of the scheduler until a guest that parks in passing is back, or a queue hands on.
HOPS = 2


class Gathering:
    """The cohort of one model loop."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._cohort: set[int] = set()  # whom the last batch woke
        self._awake: set[int] = set()  # those of them that have not parked since
        self._slices: Counter[int] = Counter()  # CPU slices of each since then
        self._nobody_awake = trio.Event()

    def begin(self, cohort: set[int]) -> None:
        """These are being given their answers now."""
        self._cohort = cohort
        self._awake = set(cohort)
        self._slices.clear()

    def parked(self, number: int) -> None:
        self._awake.discard(number)
        if not self._awake:
            self._nobody_awake.set()

    def woke(self, number: int) -> None:
        if number in self._cohort:
            self._awake.add(number)

    def submitted(self, number: int) -> None:
        """It works for this model: what it used up so far is forgiven."""
        del self._slices[number]

    def used_slice(self, number: int) -> None:
        if number not in self._awake:
            return
        self._slices[number] += 1
        if self._slices[number] >= self._limits.gather_slices:
            self._cohort.discard(number)
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
        self._cohort = set()
        self._awake.clear()
