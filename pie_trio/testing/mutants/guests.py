"""Defects of the airlock: fibers, handles, waiting, turns, limits, and messages between guests."""

from __future__ import annotations

from typing import Final

from pie_trio.testing.mutants.mutant import Mutant

_FIBER: Final = "pie_trio/wasm/fiber.py"
_GUEST: Final = "pie_trio/wasm/guest.py"
_HANDLES: Final = "pie_trio/wasm/resources.py"
_POLL: Final = "pie_trio/wasm/wasi/poll.py"
_TOPICS: Final = "pie_trio/services/topics.py"
_MESSAGE: Final = "pie_trio/wasm/host/message.py"
_HELD: Final = "pie_trio/wasm/host/resources.py"

GUESTS: Final = (
    Mutant(
        "host_objects_left",
        _GUEST,
        before="        self.border.handles.close()",
        after="        self.border.handles._free.clear()",
        why="what a dead guest held of the host is never closed",
        source="contract 9.29 (dropping a subscription does not unsubscribe)",
    ),
    Mutant(
        "killed_guest_stays",
        _GUEST,
        before="        yield guest\n    finally:\n        guest._close()",
        after="        yield guest\n    except GuestFault:\n        guest._close()\n        raise\n"
        "    else:\n        guest._close()",
        why="the memory of a killed guest outlives it",
        source="contract 9.18 (leaks when a host call is left by an exception)",
    ),
    Mutant(
        "turn_kept",
        _FIBER,
        before="            self.turns.ticker.stop()\n"
        "        if self._has_turn:\n            self._has_turn = False\n"
        "            self.turns.queue.release()",
        after="            self.turns.ticker.stop()",
        why="a busy guest that is killed takes the turn of all others along",
        source="Ray 64348 (a count that is never given back)",
    ),
    Mutant(
        "number_taken_twice",
        _HANDLES,
        before="        number = self._free.pop() if self._free else len(self._objects) + 1",
        after="        number = len(self._objects) + 1",
        why="a new object gets the number of one that the guest still holds",
        source="contract 9.13 (identities mixed up)",
    ),
    Mutant(
        "clock_missed",
        _POLL,
        before="    with trio.move_on_at(earliest):",
        after="    with trio.move_on_at(math.inf if others else earliest):",
        why="a guest that waits for an answer or a time waits for the answer alone",
        source="contract 9.3 (a time-out that never fires)",
    ),
    Mutant(
        "first_pollable_only",
        _POLL,
        before="        if len(others) == 1:\n            (other,) = others.values()",
        after="        if others:\n            other = next(iter(others.values()))",
        why="a guest that waits for several things waits for the first of them",
        source="contract 9.29",
    ),
    Mutant(
        "reader_gone_publisher_waits",
        _TOPICS,
        before="            self._board._remove(self)\n            self._line.close()",
        after="            self._board._remove(self)",
        why="who publishes waits for ever for a reader that has died",
        source="contract 9.29 (unsubscribing hangs the actor)",
    ),
    Mutant(
        "message_of_the_dead",
        _MESSAGE,
        before="    finally:\n        publication.withdraw()",
        after="    finally:\n        publication.text = publication.text",
        why="a message whose sender was killed while it waited is delivered later all the same",
        source="SGLang 36876 (work for the dead)",
    ),
    Mutant(
        "dropped_receipt_loses_message",
        _HELD,
        before="            self._withdraw(self.ticket)",
        after="            self._is_read = True",
        why="a message that came to a receipt which the guest dropped is lost",
        source="contract 9.30 (messages lost without a word)",
    ),
    Mutant(
        "second_message_unheard",
        _TOPICS,
        before="        self._line.offer(publication)\n        self._on_message()",
        after="        self._line.offer(publication)\n"
        "        if len(self._line.messages) == 1:\n            self._on_message()",
        why="a reader is woken for the first message only",
        source="contract 9.29",
    ),
)
