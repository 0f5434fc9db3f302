"""`wasi:random`: all of it comes from the one seeded stream that the guest was given.

The same seed gives the same numbers, so a guest's secrets are no better than the engine's seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pie_trio.errors import GuestFault


def _bytes(host: Any, length: int) -> bytes:
    most = host.wasi.limits.wasi_random_bytes
    if length > most:
        raise GuestFault(f"wasi:random: {length} bytes at once, at most {most}")
    data: bytes = host.wasi.random.randbytes(length)
    return data


def _u64(host: Any) -> int:
    number: int = host.wasi.random.getrandbits(64)
    return number


def _two_u64(host: Any) -> tuple[int, int]:
    return _u64(host), _u64(host)


RANDOM: Final[Mapping[str, Any]] = {"get-random-bytes": _bytes, "get-random-u64": _u64}
INSECURE: Final[Mapping[str, Any]] = {
    "get-insecure-random-bytes": _bytes,
    "get-insecure-random-u64": _u64,
}
INSECURE_SEED: Final[Mapping[str, Any]] = {"insecure-seed": _two_u64}
