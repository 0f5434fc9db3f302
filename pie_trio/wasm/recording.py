"""Host calls as events: a wrapper around every function that a guest may import.

Only programs that are linked with `recorded` pass through here, so calls that nobody records cost
nothing. A host object gets a number when it is handed out, and is named by it from then on. A call
is told when it has ended, also when it was refused or cancelled; what the host does is never
changed by being watched.
"""

from __future__ import annotations

import inspect
import json
import math
from array import array
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs
import trio
from blake3 import blake3

from pie_trio.config import Limits
from pie_trio.events import Event, HostCalled
from pie_trio.wasm.codec import Case, Err
from pie_trio.wasm.faults import GuestExit
from pie_trio.wasm.linker import HostFunction, HostInterfaces

GET_ARGUMENTS: Final = "inferlet:core/runtime#get-arguments"
PLAIN: Final = (int, float, str, bytes)


@attrs.frozen(eq=False)
class Numbered:
    """A host object in a guest's table, with the number by which events name it."""

    number: int
    thing: Any

    @property
    def label(self) -> str:
        return type(self.thing).__name__

    def close(self) -> None:
        close = getattr(self.thing, "close", None)
        if close is not None:
            close()


@attrs.define(eq=False)
class Recording:
    """The host of one guest, and how far its calls have been counted."""

    host: Any
    instance: str
    limits: Limits
    emit: Callable[[Event], None]
    hidden_arguments: int  # those before the user's: for a Python program its source
    on_call: Callable[[], None] | None = None  # before each call
    kept_whole: frozenset[str] = frozenset()  # the functions whose arguments are, however long
    is_quiet: bool = False  # only `on_call` is told
    calls: int = attrs.field(default=0, init=False)
    objects: int = attrs.field(default=0, init=False)

    def begin(self, function: str, values: Sequence[Any]) -> OpenCall:
        if self.on_call is not None:
            self.on_call()
        self.calls += 1
        if function in self.kept_whole:
            told = tuple(as_json(value) for value in values)
        else:
            told = tuple(told_argument(value, self.limits) for value in values)
        return OpenCall(self, self.calls, function, told, trio.current_time())

    def number(self, answer: Any) -> Any:
        """The same answer, with a number on each host object in it."""
        match answer:
            case None | bool() | int() | float() | str() | bytes() | bytearray() | array() | set():
                return answer
            case list() | tuple():
                if answer and all(type(end) in PLAIN for end in (answer[0], answer[-1])):
                    return answer
                return [self.number(part) for part in answer]
            case dict():
                return {name: self.number(part) for name, part in answer.items()}
            case Err():
                return Err(self.number(answer.payload))
            case Case():
                return Case(answer.tag, self.number(answer.payload))
            case _:
                self.objects += 1
                return Numbered(self.objects, answer)


@attrs.frozen(eq=False)
class OpenCall:
    """A call that has begun; told once, when it has ended."""

    recording: Recording
    number: int
    function: str
    arguments: tuple[object, ...]
    began: float

    def answered(self, answer: Any) -> Any:
        numbered = self.recording.number(answer)
        shown = numbered
        if self.function == GET_ARGUMENTS:
            shown = numbered[self.recording.hidden_arguments :]
        self._tell(as_json(shown), "", "")
        return numbered

    def failed(self, error: BaseException) -> None:
        kind = type(error).__name__
        if isinstance(error, GuestExit):
            self._tell(None, kind, "ok" if error.ok else "error")
        else:
            self._tell(None, kind, "" if isinstance(error, trio.Cancelled) else str(error))

    def _tell(self, reply: object, error_kind: str, error: str) -> None:
        recording = self.recording
        recording.emit(
            HostCalled(
                self.began,
                recording.instance,
                self.number,
                self.function,
                trio.current_time() - self.began,
                self.arguments,
                reply,
                error_kind,
                error,
            )
        )


def recorded(interfaces: HostInterfaces) -> HostInterfaces:
    """The same interfaces for a guest whose host is a `Recording`."""
    return each_function(interfaces, _recorded)


def each_function(
    interfaces: HostInterfaces, make: Callable[[str, HostFunction], HostFunction]
) -> HostInterfaces:
    """Every function replaced by what `make` makes of its name and itself."""
    return {
        interface: {name: make(f"{interface}#{name}", found) for name, found in table.items()}
        for interface, table in interfaces.items()
    }


def _recorded(name: str, function: HostFunction) -> HostFunction:
    def inline(recording: Recording, *values: Any) -> Any:
        if recording.is_quiet:
            return function(_heard(recording), *values)
        call = recording.begin(name, values)
        try:
            answer = function(recording.host, *map(plain, values))
        except BaseException as error:
            call.failed(error)
            raise
        return call.answered(answer)

    async def waiting(recording: Recording, *values: Any) -> Any:
        if recording.is_quiet:
            return await function(_heard(recording), *values)
        call = recording.begin(name, values)
        try:
            answer = await function(recording.host, *map(plain, values))
        except BaseException as error:
            call.failed(error)
            raise
        return call.answered(answer)

    return waiting if inspect.iscoroutinefunction(function) else inline


def _heard(recording: Recording) -> Any:
    """The host, of a guest of whose calls nothing is kept."""
    if recording.on_call is not None:
        recording.on_call()
    return recording.host


def plain(value: Any) -> Any:
    """An argument as the host knows it: its own objects, without their numbers."""
    if isinstance(value, Numbered):
        return value.thing
    if isinstance(value, list) and value and isinstance(value[0], Numbered):
        return [each.thing for each in value]
    return value


def as_json(value: Any) -> object:
    """A value of the border as JSON; what JSON does not have is an object with one key."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else {"float": str(value)}
        case bytes() | bytearray():
            return {"bytes": b64encode(value).decode("ascii")}
        case list() | tuple() | array():
            if value and type(value[0]) in (int, str):
                return list(value)
            return [as_json(part) for part in value]
        case dict():
            return {"record": {name: as_json(part) for name, part in value.items()}}
        case set():
            return {"flags": sorted(value)}
        case Err():
            return {"error": as_json(value.payload)}
        case Case():
            return {"case": [value.tag, as_json(value.payload)]}
        case _:
            return {"object": [value.number, value.label]}


def told_argument(value: Any, limits: Limits) -> object:
    """An argument in the form of JSON; of a large one only what tells it from others."""
    form = as_json(value)
    if not isinstance(form, str | list | dict):
        return form
    text = json.dumps(form)
    if len(text) <= limits.journal_argument_bytes:
        return form
    return {"digest": blake3(text.encode()).hexdigest()[:32], "characters": len(text)}


def shown(arguments: Sequence[object]) -> str:
    """Arguments for a person."""
    return ", ".join(_shown(part) for part in arguments)


def _shown(form: object) -> str:
    if isinstance(form, Mapping) and isinstance(pair := form.get("object"), list | tuple):
        return f"{pair[1]} {pair[0]}"
    return json.dumps(form, ensure_ascii=False)
