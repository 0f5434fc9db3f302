"""`pie:ext/errors`: refusals that a program may want to handle, as values.

Pure. What a guest may be told of (`PieError`) becomes the error of a result; everything else is a
bug of ours and climbs. Nothing has changed when a call answers with an error.
It must never turn a cancellation into a value.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from pie_trio.errors import (
    FetchFailed,
    OutOfPages,
    PassFailed,
    PieError,
    Terminated,
    TooMany,
    WorkerLost,
)
from pie_trio.wasm.codec import Case, Err

P = ParamSpec("P")
T = TypeVar("T")


def error_value(error: PieError) -> Case:
    """The case of `error` that says whose situation it is."""
    match error:
        case OutOfPages():
            counts = {
                "needed": error.needed,
                "free": error.free,
                "held-by-you": error.held_by_you,
                "capacity": error.capacity,
            }
            return Case("out-of-pages", counts)
        case WorkerLost():
            return Case("worker-lost", str(error))
        case TooMany():
            return Case("budget-exceeded", str(error))
        case Terminated():
            return Case("cancelled", str(error))
        case PassFailed() | FetchFailed():
            return Case("failed", str(error))
    return Case("invalid", str(error))


def with_errors(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T | Err]]:
    """A host function whose refusals are values."""

    @wraps(function)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T | Err:
        try:
            return await function(*args, **kwargs)
        except PieError as error:
            return Err(error_value(error))

    return call


def with_errors_now(function: Callable[P, T]) -> Callable[P, T | Err]:
    """The same for one that does not wait."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T | Err:
        try:
            return function(*args, **kwargs)
        except PieError as error:
            return Err(error_value(error))

    return call
