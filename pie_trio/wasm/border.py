"""What a guest's calls meet on their way to the host, in Python; `native` is the same in C.

A callback runs on the fiber's own stack, within the instance's task: it converts the arguments, and
either runs a plain function at once (which therefore has to be tiny) or takes the first step of a
coroutine. One that ends with it answers at once; for any other the guest is suspended, and the task
does the rest (`fiber`). An exception never crosses into wasmtime: it is kept, the guest traps, and
the task raises it again.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Coroutine
from typing import Any

import attrs

from pie_trio.wasm import abi
from pie_trio.wasm.resources import HandleTable
from pie_trio.wasm.values import Lift, Lower

Answer = Callable[["Border", int, Any], None]  # puts a value at a place


def always() -> bool:
    """Nobody drives the guest."""
    return True


@attrs.define
class PendingCall:
    """A host call that the guest waits for. Its first step has been taken."""

    coroutine: Coroutine[Any, Any, Any] | None  # none: it has ended
    trap: Any  # what it waits for; of one that has ended, its value
    answer: Answer
    place: int  # of the answer


@attrs.define(eq=False)
class Border:
    """What the callbacks of one guest need to know, found by the address of its store."""

    host: Any
    handles: HandleTable
    continuation: bytes  # what suspends the guest until `ready[0]` is 1
    ready: ctypes.Array[ctypes.c_char]
    may_go_on: Callable[[], bool] = always  # whether the guest's slice lasts, asked once an answer
    pending: PendingCall | None = None
    raised: BaseException | None = None


# Store address -> the guest that lives in it. One per sandbox, shared by all its linkers.
Borders = dict[int, Border]


def keep(border: Border, error: BaseException) -> int:
    """Keep the exception for the instance's task, and give wasmtime something to trap with."""
    border.raised = error
    handle: int = abi.error_new(b"the host refused")
    return handle


def destructor(borders: Borders) -> Callable[..., int]:
    """What closes a host object that a guest drops."""

    def destroy(_data: int, context: int, number: int) -> int:
        try:
            borders[context].handles.drop(number)
        except BaseException as error:
            return keep(borders[context], error)
        return 0

    return destroy


def inline(
    function: Callable[..., Any], lifts: list[Lift], lower: Lower | None, borders: Borders
) -> Callable[..., int]:
    """The callback of a plain function."""
    size = len(lifts) * abi.VALUE_BYTES
    places = list(zip(lifts, range(0, size, abi.VALUE_BYTES), strict=True))
    string_at, memmove, value_bytes = ctypes.string_at, ctypes.memmove, abi.VALUE_BYTES

    def call(
        _data: int, context: int, _type: int, arguments: int, _n: int, results: int, _m: int
    ) -> int:
        border = borders[context]
        try:
            handles = border.handles
            handles.allowance = handles.call_bytes
            raw = string_at(arguments, size) if size else b""
            answer = function(border.host, *[lift(handles, raw, at) for lift, at in places])
            if lower is not None:
                handles.allowance = handles.call_bytes
                memmove(results, lower(handles, answer), value_bytes)
        except BaseException as error:
            return keep(border, error)
        return 0

    return call


def suspending(
    function: Callable[..., Any], lifts: list[Lift], lower: Lower | None, borders: Borders
) -> Callable[..., None]:
    """The callback of a coroutine function."""
    size = len(lifts) * abi.VALUE_BYTES
    places = list(zip(lifts, range(0, size, abi.VALUE_BYTES), strict=True))
    answer = answering(lower)

    def call(
        _data: int,
        context: int,
        _type: int,
        arguments: int,
        _n: int,
        results: int,
        _m: int,
        error_slot: int,
        continuation: int,
    ) -> None:
        # A callback that ends without a continuation aborts the process: it comes first.
        border = borders[context]
        ctypes.memmove(continuation, border.continuation, abi.CONTINUATION_BYTES)
        try:
            # The arguments die when this callback returns; the room for the result does not.
            handles = border.handles
            handles.allowance = handles.call_bytes
            raw = ctypes.string_at(arguments, size) if size else b""
            values = [lift(handles, raw, at) for lift, at in places]
            _take_step(border, function(border.host, *values), answer, results)
        except BaseException as error:
            ctypes.c_uint64.from_address(error_slot).value = keep(border, error)

    return call


def _take_step(
    border: Border, coroutine: Coroutine[Any, Any, Any], answer: Answer, results: int
) -> None:
    """Most coroutines need no other."""
    try:
        trap = coroutine.send(None)
    except StopIteration as end:
        if border.may_go_on():
            answer(border, results, end.value)
            border.ready[0] = b"\1"
        else:
            suspend(answer, border, None, end.value, results)
    else:
        suspend(answer, border, coroutine, trap, results)


def suspend(
    answer: Answer,
    border: Border,
    coroutine: Coroutine[Any, Any, Any] | None,
    trap: Any,
    place: int,
) -> None:
    """The guest's task does the rest of this call."""
    border.pending = PendingCall(coroutine, trap, answer, place)
    border.ready[0] = b"\0"


def no_answer(_border: Border, _place: int, _value: Any) -> None:
    """Of a function without a result."""


def answering(lower: Lower | None) -> Answer:
    """What puts answers of this type where the guest will find them."""
    if lower is None:
        return no_answer

    def answer(border: Border, place: int, value: Any) -> None:
        handles = border.handles
        handles.allowance = handles.call_bytes
        ctypes.memmove(place, lower(handles, value), abi.VALUE_BYTES)

    return answer
