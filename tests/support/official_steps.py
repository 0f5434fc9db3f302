"""What both drivers of the official clients share: said steps, and reading a process to its end.

Runs in the official client's own process, where nothing of ours can be imported.
"""

from __future__ import annotations

import sys
from typing import Any

from pie_client import Event  # type: ignore[import-not-found]


def held(step: str) -> None:
    sys.stdout.write(step + "\n")
    sys.stdout.flush()


async def until_end(process: Any) -> list[tuple[Any, Any]]:
    events: list[tuple[Any, Any]] = []
    while not events or events[-1][0] not in (Event.Return, Event.Error):
        events.append(await process.recv())
    return events


async def refused(call: Any) -> str:
    try:
        await call
    except Exception as error:
        return str(error)
    raise AssertionError("the call was not refused")
