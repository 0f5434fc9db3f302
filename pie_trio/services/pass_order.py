"""What must leave before what: the last pass of each queue, and the last writer of each page.

Pure. A pass follows the one before it in its queue, and whoever writes what it reads, in whatever
queue of the same instance; so a branch never runs before the pages that it shares are written.
"""

from __future__ import annotations

from typing import TypeVar

import attrs

from gpu_worker import wire
from pie_trio.messages import ForwardPass, Owner, PageId
from pie_trio.services.batch_policy import WaitingPass

K = TypeVar("K")


@attrs.define(eq=False)
class PassOrder:
    """Remembers, of the passes that were submitted, the last ones that others must follow.

    Submission is what counts, not arrival: a pass may be held up in its queue behind a barrier
    while one that depends on it arrives by a shorter way.
    """

    _submissions: int = 0
    _page_writers: dict[PageId, WaitingPass] = attrs.field(factory=dict)
    _embedding_writers: dict[int, WaitingPass] = attrs.field(factory=dict)
    _queue_tails: dict[tuple[int, int], WaitingPass] = attrs.field(factory=dict)

    def submit(self, forward: ForwardPass) -> WaitingPass:
        """The pass in its place behind all that it depends on."""
        waiting = WaitingPass(forward, self._submissions, self._all_before(forward))
        self._submissions += 1
        self._queue_tails[forward.owner.number, forward.queue] = waiting
        for page in waiting.written:
            self._page_writers[page] = waiting
        for _, slot in forward.embed_outputs:
            self._embedding_writers[slot] = waiting
        return waiting

    def follow(self, step: ForwardPass, request: wire.Request) -> WaitingPass:
        """A step of a sequence under way: all that it depends on has been executed."""
        waiting = WaitingPass(step, self._submissions, (), request=request)
        self._submissions += 1
        return waiting

    def leave(self, waiting: WaitingPass) -> None:
        """All its rows have been dispatched: nobody has to wait for it any more."""
        forward = waiting.forward
        waiting.after = ()
        _forget(self._queue_tails, (forward.owner.number, forward.queue), waiting)
        for page in waiting.written:
            _forget(self._page_writers, page, waiting)
        for _, slot in forward.embed_outputs:
            _forget(self._embedding_writers, slot, waiting)

    def drop_owner(self, owner: Owner) -> None:
        self._page_writers = _without(self._page_writers, owner)
        self._embedding_writers = _without(self._embedding_writers, owner)
        self._queue_tails = _without(self._queue_tails, owner)

    def _all_before(self, forward: ForwardPass) -> tuple[WaitingPass, ...]:
        candidates = [self._queue_tails.get((forward.owner.number, forward.queue))]
        if self._page_writers:
            candidates += map(self._page_writers.get, forward.pages)
        if self._embedding_writers:
            slots = (-1 - token for token in forward.tokens if token < 0)
            candidates += map(self._embedding_writers.get, slots)
        return tuple({item.ordinal: item for item in candidates if item is not None}.values())


def _without(table: dict[K, WaitingPass], owner: Owner) -> dict[K, WaitingPass]:
    return {key: item for key, item in table.items() if item.forward.owner != owner}


def _forget(table: dict[K, WaitingPass], key: K, waiting: WaitingPass) -> None:
    if table.get(key) is waiting:
        del table[key]
