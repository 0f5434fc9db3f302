"""The sentences in which a guest's mistake is told: function, argument, what it was, what may be.

Pure. A fault ends the guest that made it and nobody else, and is raised before anything changed.
It must never be used for a mistake of ours: that is an assertion.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from pie_trio.errors import GuestFault
from pie_trio.messages import ResourceKind


def fault(function: str, argument: str, got: object, allowed: str) -> GuestFault:
    return GuestFault(f"{function}: {argument} is {got!r:.120}; allowed: {allowed}")


def not_served(function: str, what: str) -> GuestFault:
    return GuestFault(f"{function}: not served yet: {what}")


def resource_kind(function: str, number: int) -> ResourceKind:
    """The kind of a guest's `resource-type`; adapters are refused until they are served."""
    if number == ResourceKind.ADAPTER:
        raise not_served(function, "adapters (resource-type 2)")
    if number not in (ResourceKind.KV_PAGE, ResourceKind.EMBEDDING):
        raise fault(function, "resource-type", number, "0 (KV page) or 1 (embedding)")
    return ResourceKind(number)


def bounded_text(function: str, argument: str, text: str, bytes_max: int, bound: str) -> None:
    """Refuses a text of more than `bytes_max` bytes; `bound` is the name of that limit."""
    if len(text) * 4 <= bytes_max:
        return
    size = len(text.encode())
    if size > bytes_max:
        raise fault(function, f"the size of {argument}", size, f"at most {bytes_max} ({bound})")


def each_once(function: str, argument: str, handles: Sequence[Hashable]) -> None:
    """Refuses a list that names something twice."""
    if len(set(handles)) == len(handles):
        return
    seen: set[Hashable] = set()
    for handle in handles:
        if handle in seen:
            raise fault(function, f"a repeated entry of {argument}", handle, "each only once")
        seen.add(handle)
