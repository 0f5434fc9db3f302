"""Runs a program's `main` and tells how it ended, in the words that its user understands.

An error of the program becomes the result's error, with the frames of the program only; what it
printed is flushed whatever happens; its tasks are over when `run_to_end` returns.
"""

from __future__ import annotations

import inspect
import json
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

from componentize_py_types import Err
from inferlet.errors import Refused
from inferlet.host import HostPoller
from inferlet.loop import HostLoop
from inferlet.runtime import set_return


def run_to_end(find_main: Callable[[], Any], arguments: list[str], file: str) -> None:
    """Sets the return value from what `main` returns; raises `Err` with the reason if it fails."""
    try:
        result = run_main(find_main(), arguments)
        if result is not None:
            set_return(
                result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
            )
    except SystemExit as end:
        if end.code not in (None, 0):
            raise Err(tellable(str(end.code))) from None
    except BaseException as error:
        raise Err(tellable(describe(error, file))) from None
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def run_main(main: Any, arguments: list[str]) -> Any:
    """`main` may be a coroutine function, and may take no arguments."""
    result = main(arguments) if inspect.signature(main).parameters else main()
    if not inspect.iscoroutine(result):
        return result
    loop = HostLoop(HostPoller())  # type: ignore[abstract]  # asyncio asks for part of it only
    return loop.run_until_complete(result)


def tellable(reason: str) -> str:
    """What of it is no UTF-8 is written out."""
    return reason.encode(errors="backslashreplace").decode()


def describe(error: BaseException, file: str) -> str:
    """A traceback with the frames of the program's own `file`; what the engine refused is no fault
    in it, and told in one line."""
    if isinstance(error, Refused):
        lines = [at for frame, at in traceback.walk_tb(error.__traceback__) if _is_of(frame, file)]
        return f"{type(error).__name__}: {error} ({file}, line {lines[-1] if lines else '?'})"
    report = traceback.TracebackException.from_exception(error)
    part: traceback.TracebackException | None = report
    while part is not None:
        own = [frame for frame in part.stack if frame.filename.endswith(file)]
        part.stack = traceback.StackSummary.from_list(own)
        part = part.__cause__ or part.__context__
    return "".join(report.format()).rstrip()


def _is_of(frame: FrameType, file: str) -> bool:
    return frame.f_code.co_filename.endswith(file)
