"""How much one instance has submitted that has not settled yet: bounded, so that only it waits.

The host holds the numbers of a pass until it has settled, whatever its guest does meanwhile. Who
submits faster than the worker executes waits for its own passes, before anything has changed.
"""

from __future__ import annotations

import attrs

from pie_trio.config import Limits
from pie_trio.mailbox import Reply
from pie_trio.messages import PassDraft, PassResult

PASS_VALUES = 1024  # what a pass counts besides its numbers
OUTPUT_VALUES = 6


@attrs.define(eq=False)
class Backlog:
    """The unsettled passes of one instance, by the numbers that they hold."""

    _limits: Limits
    _unsettled: list[tuple[Reply[PassResult], int]] = attrs.field(factory=list, init=False)
    _values: int = attrs.field(default=0, init=False)

    async def wait_for_room(self, draft: PassDraft) -> int:
        """How much the draft counts. One that is larger than the bound passes when it is alone."""
        if self._unsettled and self._unsettled[0][0].is_filled:
            self._forget_settled()
        size = _size_of(draft)
        while self._unsettled and self._values + size > self._limits.pass_values_waiting:
            await self._unsettled[0][0].wait()
            self._forget_settled()
        return size

    def note(self, size: int, reply: Reply[PassResult]) -> None:
        self._unsettled.append((reply, size))
        self._values += size

    def _forget_settled(self) -> None:
        self._unsettled = [(reply, size) for reply, size in self._unsettled if not reply.is_filled]
        self._values = sum(size for _, size in self._unsettled)


def _size_of(draft: PassDraft) -> int:
    numbers = 2 * len(draft.tokens) + len(draft.pages) + 2 * len(draft.embed_outputs)
    masks = sum(map(len, draft.mask or ()))
    lists = sum([row.numbers for row in draft.outputs])
    return PASS_VALUES + numbers + masks + OUTPUT_VALUES * len(draft.outputs) + lists
