"""Errors: what the engine refused, as exceptions that a program can catch.

Nothing has changed when one is raised, so the program may go on: give pages back, try later, do
something else. A broken rule is a bug of the program, and a `ValueError`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from componentize_py_types import Err
from wit_world.imports import errors


class Refused(Exception):
    """The engine could not do what was asked."""


class OutOfPages(Refused):
    """There are not so many pages, and waiting did not help; nothing was allocated."""

    def __init__(self, needed: int, free: int, held_by_you: int, capacity: int) -> None:
        super().__init__(
            f"needed {needed} pages, {free} of {capacity} are free, you hold {held_by_you}"
        )
        self.needed = needed
        self.free = free
        self.held_by_you = held_by_you
        self.capacity = capacity


class WorkerLost(Refused):
    """The worker died; what its pages held is gone."""


class BudgetExceeded(Refused):
    """A bound that the text names is reached."""


class Cancelled(Refused):
    """It was ended from outside."""


class PassFailed(Refused):
    """The worker refused or failed this pass; the others went on."""


@contextmanager
def raised() -> Iterator[None]:
    """Around calls whose refusals are values of the WIT."""
    try:
        yield
    except Err as refusal:
        raise exception_of(refusal.value) from None


def exception_of(error: errors.Error) -> Exception:
    match error:
        case errors.Error_OutOfPages(counts):
            return OutOfPages(counts.needed, counts.free, counts.held_by_you, counts.capacity)
        case errors.Error_WorkerLost(text):
            return WorkerLost(text)
        case errors.Error_BudgetExceeded(text):
            return BudgetExceeded(text)
        case errors.Error_Cancelled(text):
            return Cancelled(text)
        case errors.Error_Failed(text):
            return PassFailed(text)
        case errors.Error_Invalid(text):
            return ValueError(text)
