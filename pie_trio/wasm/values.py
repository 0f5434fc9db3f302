"""Plain values across the border: numbers, text, and lists of numbers.

`lift` reads a value that wasmtime owns and copies nothing before its size is known to be allowed;
`lower` allocates with wasmtime's allocator and hands ownership over with the 32 bytes it returns.
Lists of numbers are strided views of foreign memory, never an object for each element.
"""

from __future__ import annotations

import ctypes
import struct
from array import array
from collections.abc import Callable
from typing import Any, Final

import attrs

from pie_trio.wasm import abi
from pie_trio.wasm.resources import HandleTable

Lift = Callable[[HandleTable, bytes, int], Any]
Lower = Callable[[HandleTable, Any], bytes]


@attrs.frozen
class Codec:
    """Both directions of one type."""

    lift: Lift
    lower: Lower


SIZE: Final = abi.VALUE_BYTES
FOUR: Final = struct.Struct("<QQQQ")  # a whole value: kind, then three words
TWO: Final = struct.Struct("<QQ")
ONE: Final = struct.Struct("<Q")

STRING, LIST, RECORD, TUPLE, VARIANT, ENUM, OPTION, RESULT, FLAGS, RESOURCE = range(12, 22)


def number_codec(kind: int, code: str) -> Codec:
    """Numbers of one width, as `struct` packs them."""
    whole = struct.Struct(f"<B7x{code}{24 - struct.calcsize(code)}x")
    pack = whole.pack
    unpack = struct.Struct("<" + code).unpack_from

    def lift(_table: HandleTable, raw: bytes, at: int) -> Any:
        return unpack(raw, at + 8)[0]

    def lower(_table: HandleTable, value: Any) -> bytes:
        return pack(kind, value)

    return Codec(lift, lower)


def bool_codec() -> Codec:
    """Truth."""
    true, false = ONE.pack(0) + FOUR.pack(1, 0, 0, 0)[:24], bytes(SIZE)

    def lift(_table: HandleTable, raw: bytes, at: int) -> bool:
        return raw[at + 8] != 0

    def lower(_table: HandleTable, value: Any) -> bytes:
        return true if value else false

    return Codec(lift, lower)


def char_codec() -> Codec:
    """One Unicode character."""
    number = number_codec(11, "I")
    return Codec(
        lambda table, raw, at: chr(number.lift(table, raw, at)),
        lambda table, value: number.lower(table, ord(value)),
    )


def new_name(text: str) -> tuple[int, int]:
    """A string in wasmtime's memory: its length and its address."""
    data = text.encode()
    room = (ctypes.c_uint64 * 2)()
    abi.bytes_new(room, len(data), data)
    return room[0], room[1]


def read_name(raw: bytes, at: int) -> str:
    """The text that a name in a value stands for."""
    length, address = TWO.unpack_from(raw, at)
    return ctypes.string_at(address, length).decode() if length else ""


def text_codec(kind: int) -> Codec:
    """Strings, and the names of enum cases."""

    def lift(table: HandleTable, raw: bytes, at: int) -> str:
        length, address = TWO.unpack_from(raw, at + 8)
        table.spend(length)
        return ctypes.string_at(address, length).decode() if length else ""

    def lower(table: HandleTable, value: Any) -> bytes:
        table.spend(len(value))
        length, address = new_name(value)
        return FOUR.pack(kind, length, address, 0)

    return Codec(lift, lower)


def number_list_codec(kind: int, code: str) -> Codec:
    """Lists of numbers, without a Python object for each: strided views of the values."""
    width = struct.calcsize(code)
    first, step = 8 // width, SIZE // width
    kind_byte = bytes((kind,))
    is_bytes = code == "B"

    def lift(table: HandleTable, raw: bytes, at: int) -> Any:
        count, address = TWO.unpack_from(raw, at + 8)
        if not count:
            return b"" if is_bytes else []
        table.spend(count * SIZE)
        view = abi.memory_view(address, count * SIZE, abi.VIEW_READ)
        if is_bytes:
            return view[8::SIZE].tobytes()
        return view.cast(code)[first::step].tolist()

    def lower(table: HandleTable, values: Any) -> bytes:
        numbers = _as_array(code, values)
        count = len(numbers)
        table.spend(count * SIZE)
        room = (ctypes.c_uint64 * 2)()
        abi.list_new(room, count)
        if count:
            view = abi.memory_view(room[1], count * SIZE, abi.VIEW_WRITE)
            view[0::SIZE] = kind_byte * count
            view.cast(code)[first::step] = numbers
        return FOUR.pack(LIST, room[0], room[1], 0)

    return Codec(lift, lower)


def _as_array(code: str, values: Any) -> Any:
    if code == "B" and isinstance(values, bytes | bytearray):
        return values
    if isinstance(values, array) and values.typecode == code:
        return values
    return array(code, values)
