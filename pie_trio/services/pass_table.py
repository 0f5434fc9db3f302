"""The passes of one worker generation, from their submission until they have settled.

Pure. A pass pins its pages all that time, also when its asker is dead; a dead asker's waiting
passes leave at once. Answers go straight to the askers. When a pass fails, those that build on it
fail with it: nothing of what it was to write is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile

from gpu_worker import wire
from pie_trio.decode import Decode, refuse
from pie_trio.errors import PassFailed, PieError, Terminated, WorkerLost
from pie_trio.messages import ForwardPass, Owner, PassResult, ResourceKind
from pie_trio.services.batch_policy import Chunk, WaitingPass
from pie_trio.services.page_pool import PagePool
from pie_trio.services.pass_chunks import Collected, whole_request, whole_result
from pie_trio.services.pass_order import PassOrder
from pie_trio.services.pass_pins import PassPins, all_on


class PassTable:
    """Which passes there are, which of them wait, and which the worker has."""

    def __init__(
        self, pools: dict[ResourceKind, PagePool], on_fault: Callable[[Owner, PieError], None]
    ) -> None:
        self.pins = PassPins(pools)
        self.tracked: dict[int, dict[ForwardPass, WaitingPass]] = {}  # by owner, until settled
        self.waiting: list[WaitingPass] = []  # have arrived, and are not executed to their end
        self.in_flight: set[ForwardPass] = set()
        self.collected: dict[ForwardPass, Collected] = {}  # of passes that were cut
        self._on_fault = on_fault
        self._order = PassOrder()
        self._answered: Counter[int] = Counter()  # passes by owner, of the batch being settled
        self._told: Counter[ForwardPass] = Counter()  # steps of the batch in flight, by the first

    def track(self, forward: ForwardPass) -> None:
        """From now on the pass pins its pages; it must be submitted next."""
        waiting = self._order.submit(forward)
        waiting.request = whole_request(forward)
        self.tracked.setdefault(forward.owner.number, {})[forward] = waiting
        self.pins.pin(forward)

    def arrive(self, forward: ForwardPass) -> None:
        """It waits from now on, unless its owner has died while it was on the way."""
        waiting = self.tracked.get(forward.owner.number, {}).get(forward)
        if waiting is not None:
            self.waiting.append(waiting)

    def drop_owner(self, owner: Owner) -> bool:
        """What this owner has waiting leaves; whether it had anything."""
        passes = self.tracked.pop(owner.number, {})
        for forward in passes:
            if forward not in self.in_flight:
                self.pins.unpin(forward)
                self.collected.pop(forward, None)
            refuse(forward, Terminated("the instance has ended"))
        self.waiting = [w for w in self.waiting if w.forward.owner != owner]
        self._order.drop_owner(owner)
        return bool(passes)

    def close(self, lost: WorkerLost) -> None:
        """The generation is over: every pass of it is refused."""
        tracked, self.tracked = self.tracked, {}
        living = {forward for passes in tracked.values() for forward in passes}
        for forward in living | self.in_flight:  # the dead ones in flight are tracked no more
            self.pins.unpin(forward)
        for forward in living:
            refuse(forward, lost)
        self.waiting.clear()
        self.in_flight.clear()
        self.collected.clear()
        self._told.clear()

    def dispatch(self, chunks: Iterable[Chunk]) -> None:
        """These are the next batch."""
        self.in_flight = {chunk.waiting.forward for chunk in chunks}
        for chunk in chunks:
            chunk.waiting.rows_done = chunk.end
            if chunk.waiting.has_left:
                self._order.leave(chunk.waiting)
        self.waiting = [waiting for waiting in self.waiting if not waiting.has_left]

    def settle_part(self, chunks: Sequence[Chunk], part: wire.BatchResult, now: float) -> None:
        """Gives out what sequences have drawn while their worker goes on; all keep their pins."""
        requests = len(chunks)
        for place, chunk in enumerate(chunks):
            forward = chunk.waiting.forward
            if forward in self.tracked.get(forward.owner.number, {}):
                results = self._results(chunk, part.answers[place::requests])
                decode = self._decode(chunk, results, now, is_chunk=True)
                if decode.reason is not None:  # its guest has had enough
                    del self.tracked[forward.owner.number][forward]
                    forward.reply.fill(results[-1])

    def settle(
        self, chunks: Sequence[Chunk], result: wire.BatchResult, now: float, is_whole: bool
    ) -> Counter[int]:
        """Gives the answers out; how many passes of each owner were answered.

        `is_whole`: all steps that the worker was to execute without asking are here.
        """
        self._answered = Counter()
        requests, answers = len(chunks), result.answers
        assert requests <= len(answers), "a batch has an answer for each request"
        for place, chunk in enumerate(chunks):
            self._settle_chunk(chunk, answers[place::requests], now, is_whole)
        self._told.clear()
        return self._answered

    def _settle_chunk(
        self, chunk: Chunk, answers: Sequence[wire.Answer], now: float, is_whole: bool
    ) -> None:
        forward = chunk.waiting.forward
        self.in_flight.discard(forward)
        if forward not in self.tracked.get(forward.owner.number, {}):
            # Its owner died meanwhile, or what it builds on failed.
            self.collected.pop(forward, None)
            self.pins.unpin(forward)
            return
        good = [*takewhile(lambda answer: answer.error is None, answers)]
        is_begun = good or self._told[forward]
        left = self._take(chunk, good, now, is_whole) if is_begun else chunk.waiting
        if len(good) < len(answers) and left is not None:
            self._fail(left, PassFailed(f"forward pass: {answers[len(good)].error}"))

    def _take(
        self, chunk: Chunk, answers: Sequence[wire.Answer], now: float, is_whole: bool
    ) -> WaitingPass | None:
        """What is still to be executed of the pass, or of the sequence of which it is a step."""
        forward = chunk.waiting.forward
        results = self._results(chunk, answers)
        if not chunk.waiting.has_left:
            return chunk.waiting
        if forward.decode is not None:
            decode = self._decode(chunk, results, now, is_whole)
            if decode.reason is None:
                return self._go_on(forward, decode, now)
        del self.tracked[forward.owner.number][forward]
        self.pins.unpin(forward)
        self._answered[forward.owner.number] += bool(forward.outputs)  # who asks nothing waits not
        forward.reply.fill(results[-1] if results else PassResult((), ()))
        return None

    def _decode(
        self, chunk: Chunk, results: Sequence[PassResult], now: float, is_chunk: bool
    ) -> Decode:
        """The sequence has drawn these tokens, and written what it read for them."""
        forward = chunk.waiting.forward
        assert forward.decode is not None, "only sequences go on"
        self._told[forward] += forward.decode.take(results, forward.page_size, now, is_chunk)
        self.pins.mark(chunk.waiting, self._told[forward])
        return forward.decode

    def _results(self, chunk: Chunk, answers: Sequence[wire.Answer]) -> list[PassResult]:
        """Of each step; none as long as the pass is not executed to its end."""
        forward, results = chunk.waiting.forward, []
        for answer in answers:
            whole = whole_result(chunk, answer)
            if whole is not None:
                results.append(whole)
                continue
            collected = self.collected.setdefault(forward, Collected())
            collected.add(chunk, answer)
            if chunk.waiting.has_left:
                results.append(self.collected.pop(forward).result(forward))
        return results

    def _go_on(self, forward: ForwardPass, decode: Decode, now: float) -> WaitingPass:
        """The next step of a sequence takes the place of this one, its pins included."""
        step = self._order.follow(*decode.next_step(forward, now, self._told[forward]))
        tracked = self.tracked[forward.owner.number]
        del tracked[forward]
        tracked[step.forward] = step
        if step.forward.pins is not forward.pins:
            self.pins.pin(step.forward)
            self.pins.unpin(forward)
        self.waiting.append(step)
        return step

    def _fail(self, first: WaitingPass, error: PassFailed) -> None:
        """With it fail those that build on what it was to write: nothing of that is there."""
        tracked = self.tracked[first.forward.owner.number]
        for waiting in [first, *all_on(first, tracked)]:
            del tracked[waiting.forward]
            self._answered[waiting.forward.owner.number] += 1
            self._withdraw(waiting)
            refuse(waiting.forward, error)
            if not waiting.forward.outputs:  # nobody will look at it
                self._on_fault(waiting.forward.owner, error)
            error = PassFailed("forward pass: an earlier pass, on which it builds, has failed")

    def _withdraw(self, waiting: WaitingPass) -> None:
        """Nothing of it is executed any more; in flight, it keeps its pins until it is settled."""
        forward = waiting.forward
        waiting.rows_done = len(forward.tokens)
        self._order.leave(waiting)
        self.collected.pop(forward, None)
        self.waiting = [item for item in self.waiting if item is not waiting]
        self.pins.unmark(forward)
        if forward not in self.in_flight:
            self.pins.unpin(forward)
