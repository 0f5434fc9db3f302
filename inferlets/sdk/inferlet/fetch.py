"""Requests to other hosts: those that the engine allows, and no others.

An answer is whole when it is there. A request whose task is cancelled is broken off.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from componentize_py_types import Err
from wit_world.imports import errors
from wit_world.imports import fetch as host_fetch

from inferlet.errors import Refused, exception_of, raised
from inferlet.host import in_milliseconds, settled


class FetchFailed(Refused):
    """The other host, or the way to it, failed."""


@dataclass(frozen=True)
class Response:
    """What another host answered."""

    status: int
    url: str  # where it came from, after redirects
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", errors="replace")

    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """The first header of this name, in any case."""
        found = (value for key, value in self.headers if key.lower() == name.lower())
        return next(found, None)


async def fetch(
    url: str,
    method: str = "GET",
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    seconds: float | None = None,
) -> Response:
    """Asks another host. Raises `ValueError` if it may not be asked, `FetchFailed` if it fails."""
    given = list((headers or {}).items())
    with raised():
        pending = host_fetch.send(method, url, given, body, in_milliseconds(seconds))
    with pending:
        await settled(pending)
        answer = pending.get()
    if isinstance(answer, Err):
        if isinstance(answer.value, errors.Error_Failed):
            raise FetchFailed(answer.value.value)
        raise exception_of(answer.value)
    if answer is None:
        raise FetchFailed(f"{url}: no answer came")
    found = answer.value
    return Response(found.status, found.url, list(found.headers), found.body)
