"""Defects of the airlock: how a guest dies, and what it can wait for."""

from __future__ import annotations

from typing import Final

from pie_trio.testing.mutants.mutant import Mutant

_GUEST: Final = "pie_trio/wasm/guest.py"
_POLL: Final = "pie_trio/wasm/wasi/poll.py"

GUESTS: Final = (
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
        "clock_missed",
        _POLL,
        before="    with trio.move_on_at(earliest):",
        after="    with trio.move_on_at(math.inf if others else earliest):",
        why="a guest that waits for an answer or a time waits for the answer alone",
        source="contract 9.3 (a time-out that never fires)",
    ),
)
