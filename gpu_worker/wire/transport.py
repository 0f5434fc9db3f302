"""A message as one frame of a socket: its parts one after the other, each at a multiple of eight.

A frame has its price in every queue between two processes, whatever its size, and a batch has
many small parts. Owns the table of lengths at the front. Reading copies nothing: the parts are
views into the frame. What a broken peer sends raises `WireError`.
"""

import struct
from collections.abc import Sequence

from gpu_worker.wire.arrays import Frame
from gpu_worker.wire.codec import Message, decode, encode
from gpu_worker.wire.errors import WireError

PARTS_MAX = 64
_COUNT = struct.Struct("<I")
_ALIGNMENT = 8
_PADDING = tuple(bytes(missing) for missing in range(_ALIGNMENT))


def to_frame(message: Message) -> bytes:
    """The whole message."""
    parts = encode(message)
    sizes = [len(part) for part in parts]
    pieces = [struct.pack(f"<{1 + len(parts)}I", len(parts), *sizes)]
    pieces.append(_PADDING[-len(pieces[0]) % _ALIGNMENT])
    for part, size in zip(parts, sizes, strict=True):
        pieces += (part, _PADDING[-size % _ALIGNMENT])
    return b"".join(pieces)


def from_frame(frame: Frame) -> Message:
    """The message of this frame. A batch comes as `BatchArrays`, views into it."""
    whole = memoryview(frame)
    at = _after(_table_bytes(whole))
    parts = []
    for size in _sizes(whole):
        parts.append(whole[at : at + size])
        at = _after(at + size)
    if at != len(whole):
        raise WireError(f"a message of {at} bytes came as {len(whole)}")
    return decode(parts)


def only_frame(frames: Sequence[Frame]) -> Frame:
    """Of a message that came in frames."""
    if len(frames) != 1:
        raise WireError(f"a message is one frame, not {len(frames)}")
    return frames[0]


def _after(size: int) -> int:
    return size + -size % _ALIGNMENT


def _table_bytes(whole: memoryview) -> int:
    if len(whole) < _COUNT.size:
        raise WireError("a message is shorter than its table of lengths")
    (count,) = _COUNT.unpack_from(whole)
    if not 1 <= count <= PARTS_MAX or len(whole) < _COUNT.size * (1 + count):
        raise WireError("a message has no true table of lengths")
    return _COUNT.size * (1 + int(count))


def _sizes(whole: memoryview) -> tuple[int, ...]:
    count = _table_bytes(whole) // _COUNT.size - 1
    return struct.unpack_from(f"<{count}I", whole, _COUNT.size)
