"""What a guest asks of other hosts, and what it hears: plain facts that several rooms know.

Pure. Nothing here decides whether a request may be made; `services.fetch_rules` does.
"""

from __future__ import annotations

import attrs

Headers = tuple[tuple[str, str], ...]


@attrs.frozen
class FetchRequest:
    """One request over HTTP."""

    method: str
    url: str
    headers: Headers = ()
    body: bytes = b""
    timeout_seconds: float | None = None  # none: the most that is allowed


@attrs.frozen
class FetchResponse:
    """What came back, from the last of several places if there were redirects."""

    status: int
    url: str
    headers: Headers
    body: bytes
