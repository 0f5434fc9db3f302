"""The host objects that one guest holds: its handles, and what closes when it dies.

wasmtime drops no host resource when a store goes away, so this table is the only owner. Every
object is closed exactly once: when the guest drops its handle, or when the guest ends. `close` of
a host object is synchronous and must not raise; one that raises is our bug and climbs, after all
the others have been closed.
"""

from __future__ import annotations

from typing import Any

import attrs

from pie_trio.errors import GuestFault


@attrs.define(eq=False)
class HandleTable:
    """Number -> host object, for one guest; also the allowance of the host call in progress."""

    context: int  # the store that the handles belong to
    handles_max: int
    call_bytes: int
    allowance: int = 0  # bytes that the call in progress may still carry
    _objects: dict[int, Any] = attrs.field(factory=dict)
    _free: list[int] = attrs.field(factory=list)

    def __len__(self) -> int:
        return len(self._objects)

    def put(self, thing: Any) -> int:
        """Give an object a number; the guest owns it from now on."""
        if len(self._objects) >= self.handles_max:
            raise GuestFault(f"the guest holds {self.handles_max} resources and may hold no more")
        number = self._free.pop() if self._free else len(self._objects) + 1
        self._objects[number] = thing
        return number

    def look_up(self, number: int) -> Any:
        """The object that the guest lends for one call."""
        return self._objects[number]

    def take(self, number: int) -> Any:
        """The object that the guest hands over for good."""
        thing = self._objects.pop(number)
        self._free.append(number)
        return thing

    def drop(self, number: int) -> None:
        """The guest dropped its handle."""
        thing = self._objects.pop(number)
        self._free.append(number)
        _close(thing)

    def spend(self, size: int) -> None:
        """Refuse the call before anything is copied, if it carries too much."""
        self.allowance -= size
        if self.allowance < 0:
            raise GuestFault(f"the values of one host call take more than {self.call_bytes} bytes")

    def close(self) -> None:
        """The guest is gone: close what it left behind, the youngest first."""
        failed: list[BaseException] = []
        while self._objects:
            _number, thing = self._objects.popitem()
            try:
                _close(thing)
            except BaseException as error:
                failed.append(error)
        if failed:
            raise failed[0]


def _close(thing: Any) -> None:
    close = getattr(thing, "close", None)
    if close is not None:
        close()
