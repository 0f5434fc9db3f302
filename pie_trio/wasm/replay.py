"""Host calls answered from a recording: the guest runs again, and the world stays as it was.

Nothing here waits, reads a clock or reaches a model. The first call that is not the recorded one
ends the guest with `Diverged`, which names it; a call whose recorded answer never came ends it as
the recording does. A reply that no function could have given is the file's fault, never ours.
"""

from __future__ import annotations

import binascii
import math
from base64 import b64decode
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import attrs

from pie_trio import errors
from pie_trio.config import Limits
from pie_trio.errors import BadJournal, GuestFault, PieError
from pie_trio.events import HostCalled
from pie_trio.wasm.codec import Case, Err
from pie_trio.wasm.faults import GuestExit
from pie_trio.wasm.linker import HostFunction, HostInterfaces
from pie_trio.wasm.recording import GET_ARGUMENTS, each_function, shown, told_argument

PLACES_SHOWN = 400  # characters of a call that is told to a person


class Diverged(PieError):
    """The program made another host call than the recorded one."""


class RecordedEnd(PieError):
    """Here the recorded instance was ended from outside, or the recording stops."""


@attrs.frozen(eq=False)
class Stand:
    """What stands for a host object: its number, and what it was."""

    number: int
    label: str


@attrs.define(eq=False)
class Replay:
    """The host of a guest that runs again. `position`: how many calls have agreed."""

    calls: Sequence[HostCalled]
    arguments: Sequence[str]  # all of them, with the program's own
    limits: Limits
    ended_by_itself: bool  # the recorded guest returned or failed
    on_agreed: Callable[[int], None]  # told the number of each call that is the recorded one,
    listener: Callable[[str, Sequence[Any], Any], None]  # and of each that was answered
    position: int = attrs.field(default=0, init=False)

    def answer(self, function: str, values: Sequence[Any]) -> Any:
        number = self.position + 1
        told = [told_argument(value, self.limits) for value in values]
        if number > len(self.calls):
            if not self.ended_by_itself:
                raise RecordedEnd(f"the recording ends after host call {self.position}")
            now = call_text(function, told)
            raise Diverged(f"host call {number}: recorded: the end of the program; now: {now}")
        call = self.calls[self.position]
        if (function, told) != (call.function, list(call.arguments)):
            before = call_text(call.function, call.arguments)
            now = call_text(function, told)
            raise Diverged(f"host call {number}: recorded: {before}; now: {now}")
        self.position = number
        self.on_agreed(number)
        if call.error_kind:
            raise_recorded(call)
        answer = self.arguments if function == GET_ARGUMENTS else from_json(call.reply)
        self.listener(function, values, answer)
        return answer


def replayed(interfaces: HostInterfaces) -> HostInterfaces:
    """The same names for a guest whose host is a `Replay`."""

    def make(name: str, _function: HostFunction) -> HostFunction:
        def call(replay: Replay, *values: Any) -> Any:
            return replay.answer(name, values)

        return call

    return each_function(interfaces, make)


def raise_recorded(call: HostCalled) -> NoReturn:
    """What the host raised then."""
    if call.error_kind == "Cancelled":
        raise RecordedEnd(f"the recording ends in host call {call.number}")
    if call.error_kind == GuestExit.__name__:
        raise GuestExit(call.error == "ok")
    kind = getattr(errors, call.error_kind, None)
    if isinstance(kind, type) and issubclass(kind, PieError):
        raise kind(call.error)
    raise GuestFault(f"{call.error_kind}: {call.error}")


def from_json(form: Any) -> Any:
    """The value that `recording.as_json` wrote down. Raises `BadJournal`."""
    if isinstance(form, list):
        if form and type(form[0]) in (int, str):
            return form
        return [from_json(part) for part in form]
    if not isinstance(form, dict):
        return form
    try:
        [(kind, content)] = form.items()
        return _special(kind, content)
    except (ValueError, TypeError, AttributeError, binascii.Error):
        raise BadJournal(f"{form!r:.{PLACES_SHOWN}} stands for no value") from None


def _special(kind: str, content: Any) -> Any:
    match kind:
        case "float":
            number = float(content)
            return number if not math.isfinite(number) else _no_value()
        case "bytes":
            return b64decode(content, validate=True)
        case "record":
            return {name: from_json(part) for name, part in content.items()}
        case "flags":
            return set(content)
        case "error":
            return Err(from_json(content))
        case "case":
            tag, payload = content
            return Case(tag, from_json(payload))
        case "object":
            number, label = content
            return Stand(number, label)
        case _:
            return _no_value()


def _no_value() -> NoReturn:
    raise ValueError("not a value")


def call_text(function: str, arguments: Sequence[object]) -> str:
    """A call for a person."""
    text = f"{function}({shown(arguments)})"
    return text if len(text) <= PLACES_SHOWN else f"{text[:PLACES_SHOWN]}..."
