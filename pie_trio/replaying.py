"""A recorded instance once more, offline: the same program, the recorded answers, the same words.

No engine, no worker, no model and no child runs; what the guest says, and what its children said
then, goes to a listener as it did to its client. Whatever ends the guest, the verdict tells how far
it agreed with the recording. A damaged or forged journal is refused by name and harms nobody: its
guest lives in the sandbox like any.
"""

from __future__ import annotations

import math
import struct
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Final

import attrs

from pie_trio.config import Limits
from pie_trio.errors import BadJournal, GuestFault, PieError
from pie_trio.events import InstanceFinished, RecordingStarted
from pie_trio.guest_output import OUTPUT_CALLS, OutputOfCalls
from pie_trio.home import Home
from pie_trio.journal import Journal
from pie_trio.messages import OutputEvent
from pie_trio.program_loader import LoadedProgram, ProgramLoader
from pie_trio.recording import FELT_LIMITS
from pie_trio.services.program_store import ProgramRecord
from pie_trio.wasm.guest import open_sandbox
from pie_trio.wasm.host.interfaces import host_interfaces
from pie_trio.wasm.native import open_native
from pie_trio.wasm.replay import Diverged, RecordedEnd, Replay, call_text, from_json, replayed

# What the codecs raise when a made-up reply is not of the type that the function returns.
MISFITS: Final = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    OverflowError,
    AssertionError,
    struct.error,
)


class Agreement(Enum):
    """How a replay compares with its recording."""

    SAME = "the same"
    CUT = "the same as far as the recording goes"
    DIVERGED = "diverged"


@attrs.frozen
class Verdict:
    """What came of a replay."""

    agreement: Agreement
    calls: int  # that agreed
    text: str  # how it ended, or where it diverged
    changed: str  # "" if the program is the recorded one


async def replay(
    journal: Journal,
    program: ProgramRecord,
    home: Home,
    limits: Limits,
    say: Callable[[str], None],
    listener: Callable[[OutputEvent], None],
) -> Verdict:
    """Raises `BadJournal` and `BadProgram`. Cancelled: the guest is gone."""
    started = journal.recording()
    limits = _limits(limits, started)
    ending = journal.ending(started.instance)
    calls = journal.calls(started.instance)
    async with open_sandbox(limits, native=open_native(home.native, say)) as sandbox:
        loader = ProgramLoader(sandbox, home, limits, say, replayed(host_interfaces()))
        loaded = await loader.load(program)
        output = OutputOfCalls(listener)
        arguments = (*loaded.arguments, *started.arguments)
        by_itself = ending is not None and _ended_by_itself(ending, journal)
        family = FamilyOutput(family_output(journal, started.instance), listener)
        host = Replay(calls, arguments, limits, by_itself, family.show_before, output.note)
        text, agreement = await _judge(loaded, host, limits, ending)
    if agreement is not Agreement.DIVERGED:
        family.show_before(math.inf)
    if agreement is Agreement.SAME and ending is not None:
        output.end(ending)
    return Verdict(agreement, host.position, text, _changes(loaded, started))


@attrs.frozen(eq=False)
class FamilyOutput:
    """What the program's children told its client. They do not run again: it is shown when it came
    then, between the calls of the program itself."""

    events: deque[tuple[int, OutputEvent]]  # and how many calls had ended before
    listener: Callable[[OutputEvent], None]

    def show_before(self, number: float) -> None:
        """What came before the call of this number had ended."""
        while self.events and self.events[0][0] < number:
            self.listener(self.events.popleft()[1])


def family_output(journal: Journal, instance: str) -> deque[tuple[int, OutputEvent]]:
    """Of the children of an instance and of theirs. Raises `BadJournal`."""
    found: deque[tuple[int, OutputEvent]] = deque()
    outputs: dict[str, OutputOfCalls] = {}
    fresh: list[OutputEvent] = []
    for before, call in journal.family_calls(instance):
        if call.function in OUTPUT_CALLS and not call.error_kind:
            output = outputs.setdefault(call.instance, OutputOfCalls(fresh.append))
            try:
                values = [from_json(argument) for argument in call.arguments]
                output.note(call.function, values, from_json(call.reply))
            except MISFITS as error:
                raise BadJournal(f"host call {call.number} of a child: {error!r}") from None
            found += [(before, event) for event in fresh]
            fresh.clear()
    return found


async def _judge(
    loaded: LoadedProgram, host: Replay, limits: Limits, ending: InstanceFinished | None
) -> tuple[str, Agreement]:
    try:
        now = await _run(loaded, host, limits)
    except Diverged as error:
        return str(error), Agreement.DIVERGED
    except RecordedEnd as error:
        if ending is None:
            return str(error), Agreement.CUT
        return _told(ending.outcome, ending.reason), Agreement.SAME
    if host.position < len(host.calls):
        missed = host.calls[host.position]
        return (
            f"host call {missed.number}: recorded: {call_text(missed.function, missed.arguments)}; "
            f"now: {_told(*now)}"
        ), Agreement.DIVERGED
    if ending is None:
        return f"the recording ends after host call {host.position}", Agreement.CUT
    recorded = (ending.outcome, ending.reason)
    if now != recorded and host.ended_by_itself:
        return f"recorded: {_told(*recorded)}; now: {_told(*now)}", Agreement.DIVERGED
    return _told(*recorded), Agreement.SAME


async def _run(loaded: LoadedProgram, host: Replay, limits: Limits) -> tuple[str, str]:
    """Outcome and reason, as `InstanceFinished` tells them."""
    try:
        async with loaded.open_guest(
            host,
            memory_bytes=limits.memory_guest_bytes,
            on_park=_nobody,
            on_wake=_nobody,
            on_slice=_nobody,
        ) as guest:
            await guest.run()
    except (Diverged, RecordedEnd, BadJournal):
        raise
    except PieError as error:
        return type(error).__name__, str(error) or type(error).__name__
    except MISFITS as error:
        text = f"host call {host.position}: its reply does not fit: {error!r}"
        raise BadJournal(text) from error
    return "return", ""


def _nobody() -> None:
    """Nobody waits for a guest that runs again."""


def _ended_by_itself(ending: InstanceFinished, journal: Journal) -> bool:
    """Returned or failed, and was not ended from outside."""
    if ending.outcome in ("return", GuestFault.__name__):
        return True
    calls = journal.calls(ending.instance)
    return bool(calls) and calls[-1].error_kind == ending.outcome


def _limits(limits: Limits, started: RecordingStarted) -> Limits:
    """The bounds that the recorded guest felt; more than ours would be a way in."""
    felt = {name: value for name, value in started.limits.items() if name in FELT_LIMITS}
    for name, value in felt.items():
        if not 0 < value <= getattr(limits, name):
            raise BadJournal(
                f"recorded with {name} {value}; here it is {getattr(limits, name)}: raise it in "
                "the configuration"
            )
    return attrs.evolve(limits, **felt)


def _changes(loaded: LoadedProgram, started: RecordingStarted) -> str:
    if loaded.digest != started.digest:
        return "the program has changed since it was recorded"
    if loaded.component != started.component:
        return "the interpreter has changed since it was recorded"
    return ""


def _told(outcome: str, reason: str) -> str:
    return "returned" if outcome == "return" else f"ended with {outcome}: {reason}"
