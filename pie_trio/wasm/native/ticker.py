"""The thread that ends the slices of busy guests, in C: it never takes Python's lock.

Owns the thread for the length of a block; guests may run only within it. With a ticker in Python,
each of its ticks made the thread of the guests wait for the lock that the tick had taken.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_bool, c_uint64, c_void_p

import attrs

from pie_trio.wasm.native.library import Native


@attrs.frozen(eq=False)
class NativeTicker:
    """Implements `ticker.Slicer`."""

    seconds: float
    _poll: ctypes._NamedFuncPointer
    _address: int

    def poll(self, context: int, future: int) -> bool:
        done: bool = self._poll(self._address, context, future)
        return done


@contextmanager
def open_native_ticker(
    native: Native, engine_address: int, seconds: float
) -> Iterator[NativeTicker]:
    """Run it beside the block."""
    library = ctypes.CDLL(native.path)  # without Python's lock, while a guest runs
    opening, poll, close = (
        library[f"pie_{name}"] for name in ("ticker_open", "poll", "ticker_close")
    )
    opening.restype, opening.argtypes = c_void_p, (c_void_p, c_uint64)
    poll.restype, poll.argtypes = c_bool, (c_void_p, c_void_p, c_void_p)
    close.restype, close.argtypes = None, (c_void_p,)
    address = opening(engine_address, round(seconds * 1e9))
    if not address:
        raise MemoryError("there is no room for another thread")
    try:
        yield NativeTicker(seconds, poll, address)
    finally:
        close(address)
