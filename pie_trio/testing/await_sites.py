"""Where tasks stand: the `await`, `async with` and `async for` at which each of them is suspended.

A site is a place in a source file, as Python's own byte code names it, so that it can be compared
with what the parser finds there. Reading where a task stands changes nothing and survives the
task's death. Nothing here may ever resume what it looks at.
"""

from __future__ import annotations

import dis
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

import attrs
import trio

import pie_trio

PACKAGE: Final = Path(pie_trio.__file__).parent
MACHINERY: Final = tuple(
    PACKAGE / "testing" / name for name in ("cancellation_run.py", "scheduler.py")
)
STANDARD_LIBRARY: Final = Path(dis.__file__).parent
PARTS: Final = ("await", "enter", "exit")  # by the argument of GET_AWAITABLE
CODES_REMEMBERED: Final = 4096


@attrs.frozen(order=True)
class Site:
    """A place where a task can be suspended; a line of `async with` has two of them."""

    file: str  # in this package from `pie_trio` on, elsewhere from the current folder
    line: int
    column: int
    part: str  # await, enter, exit, next

    def __str__(self) -> str:
        part = "" if self.part == "await" else f" ({self.part})"
        return f"{self.file}:{self.line}{part}"


def sites_of(task: trio.lowlevel.Task) -> list[Site]:
    """The sites at which this task stands, the outermost first; not those inside of libraries."""
    found = (_site_at(frame.f_code, frame.f_lasti) for frame in frames_of(task))
    return [site for site in found if site is not None]


def own_site(task: trio.lowlevel.Task) -> Site | None:
    """The innermost of them."""
    sites = sites_of(task)
    return sites[-1] if sites else None


def frames_of(task: trio.lowlevel.Task) -> Iterator[FrameType]:
    """All its frames, the outermost first."""
    for frame, _line in task.iter_await_frames():
        yield frame
        if frame.f_code.co_name == "_go_on" and frame.f_code.co_filename.endswith("fiber.py"):
            # A host call whose first step a fiber took by hand is awaited by no `await`.
            yield from _frames_below(frame.f_locals["coroutine"])


def _frames_below(coroutine: Any) -> Iterator[FrameType]:
    """As Trio does it for the coroutine of a task."""
    holder = _Holder(coroutine)
    for frame, _line in trio.lowlevel.Task.iter_await_frames(holder):  # type: ignore[arg-type]
        yield frame


@attrs.frozen
class _Holder:
    """All that Trio looks at in a task to follow its frames."""

    coro: Any


@lru_cache(CODES_REMEMBERED)
def _site_at(code: CodeType, instruction: int) -> Site | None:
    """None inside of a library, and for a frame that is suspended by no `await`."""
    label = _label(code.co_filename)
    if label is None:
        return None
    found: dis.Instruction | None = None
    for each in dis.get_instructions(code):
        if each.offset > instruction:
            break
        if each.opname in ("GET_AWAITABLE", "GET_ANEXT"):
            found = each
    if found is None or found.positions is None or found.positions.lineno is None:
        return None
    part = "next" if found.opname == "GET_ANEXT" else PARTS[found.arg or 0]
    column = found.positions.col_offset or 0
    return Site(label, found.positions.lineno, column, part)


@lru_cache(CODES_REMEMBERED)
def _label(file: str) -> str | None:
    """None for what is neither the package nor somebody's own program."""
    path = Path(file)
    if path.is_relative_to(PACKAGE):
        return None if path in MACHINERY else path.relative_to(PACKAGE.parent).as_posix()
    if "site-packages" in path.parts or path.is_relative_to(STANDARD_LIBRARY):
        return None
    return path.relative_to(Path.cwd()).as_posix() if path.is_relative_to(Path.cwd()) else file
