"""Values across the border: WIT types compiled once into a pair of functions each.

    list<u8>     bytes                  record    dict by field name
    list<T>      list                   variant   Case(tag, payload)
    string       str                    enum      str, the case's name
    option<T>    None or the value      result    the value, or Err(payload)
    tuple        tuple                  flags     set of names
    own, borrow  the host's own object  numbers, bool, char: the obvious

`lift` reads a value that wasmtime owns and copies nothing before the size is known to be allowed.
`lower` allocates with wasmtime's allocator and hands ownership over with the 32 bytes it returns.
A wrong value from the host is our bug and raises as such; a guest cannot send one, because
wasmtime has checked its types.
"""

from __future__ import annotations

import ctypes
import struct
from array import array
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

import attrs
from wasmtime import component as wit

from pie_trio.wasm import abi
from pie_trio.wasm.resources import HandleTable

Lift = Callable[[HandleTable, bytes, int], Any]
Lower = Callable[[HandleTable, Any], bytes]
# Tells the number under which a resource type was registered.
ResourceNumber = Callable[[Any], int]


@attrs.frozen
class Err:
    """The error arm of a result."""

    payload: Any = None


@attrs.frozen
class Case:
    """One case of a variant."""

    tag: str
    payload: Any = None


@attrs.frozen
class Codec:
    """Both directions of one type."""

    lift: Lift
    lower: Lower


SIZE: Final = abi.VALUE_BYTES
_FOUR = struct.Struct("<QQQQ")  # a whole value: kind, then three words
_TWO = struct.Struct("<QQ")
_ONE = struct.Struct("<Q")

_STRING, _LIST, _RECORD, _TUPLE, _VARIANT, _ENUM, _OPTION, _RESULT, _FLAGS, _RESOURCE = range(
    12, 22
)

# type -> (kind, struct code)
_NUMBERS: Final[dict[type, tuple[int, str]]] = {
    wit.S8: (1, "b"),
    wit.U8: (2, "B"),
    wit.S16: (3, "h"),
    wit.U16: (4, "H"),
    wit.S32: (5, "i"),
    wit.U32: (6, "I"),
    wit.S64: (7, "q"),
    wit.U64: (8, "Q"),
    wit.F32: (9, "f"),
    wit.F64: (10, "d"),
}


def codec_for(kind: Any, number_of: ResourceNumber) -> Codec:
    """Compile the codec of one type."""
    if type(kind) in _NUMBERS:
        return _number(*_NUMBERS[type(kind)])
    if isinstance(kind, wit.ListType) and type(kind.element) in _NUMBERS:
        return _number_list(*_NUMBERS[type(kind.element)])
    if isinstance(kind, wit.OwnType):
        return _own(number_of(kind.ty))
    if isinstance(kind, wit.BorrowType):
        return Codec(_lift_borrow, _refuse_to_lower)
    build = _BUILDERS.get(type(kind))
    if build is None:
        raise abi.WasmError(f"values of type {type(kind).__name__} cannot cross the border")
    return build(kind, number_of)


def _number(kind: int, code: str) -> Codec:
    whole = struct.Struct(f"<B7x{code}{24 - struct.calcsize(code)}x")
    pack = whole.pack
    unpack = struct.Struct("<" + code).unpack_from

    def lift(_table: HandleTable, raw: bytes, at: int) -> Any:
        return unpack(raw, at + 8)[0]

    def lower(_table: HandleTable, value: Any) -> bytes:
        return pack(kind, value)

    return Codec(lift, lower)


def _bool(_kind: Any, _number_of: ResourceNumber) -> Codec:
    true, false = _ONE.pack(0) + _FOUR.pack(1, 0, 0, 0)[:24], bytes(SIZE)

    def lift(_table: HandleTable, raw: bytes, at: int) -> bool:
        return raw[at + 8] != 0

    def lower(_table: HandleTable, value: Any) -> bytes:
        return true if value else false

    return Codec(lift, lower)


def _char(_kind: Any, _number_of: ResourceNumber) -> Codec:
    number = _number(11, "I")
    return Codec(
        lambda table, raw, at: chr(number.lift(table, raw, at)),
        lambda table, value: number.lower(table, ord(value)),
    )


def _new_name(text: str) -> tuple[int, int]:
    """A string in wasmtime's memory: its length and its address."""
    data = text.encode()
    room = (ctypes.c_uint64 * 2)()
    abi.bytes_new(room, len(data), data)
    return room[0], room[1]


def _read_name(raw: bytes, at: int) -> str:
    length, address = _TWO.unpack_from(raw, at)
    return ctypes.string_at(address, length).decode() if length else ""


def _text(kind: int) -> Codec:
    def lift(table: HandleTable, raw: bytes, at: int) -> str:
        length, address = _TWO.unpack_from(raw, at + 8)
        table.spend(length)
        return ctypes.string_at(address, length).decode() if length else ""

    def lower(table: HandleTable, value: Any) -> bytes:
        table.spend(len(value))
        length, address = _new_name(value)
        return _FOUR.pack(kind, length, address, 0)

    return Codec(lift, lower)


def _number_list(kind: int, code: str) -> Codec:
    """Lists of numbers, without a Python object for each: strided views of the values."""
    width = struct.calcsize(code)
    first, step = 8 // width, SIZE // width
    kind_byte = bytes((kind,))
    is_bytes = code == "B"

    def lift(table: HandleTable, raw: bytes, at: int) -> Any:
        count, address = _TWO.unpack_from(raw, at + 8)
        if not count:
            return b"" if is_bytes else []
        table.spend(count * width)
        view = abi.memory_view(address, count * SIZE, abi.VIEW_READ)
        if is_bytes:
            return view[8::SIZE].tobytes()
        return view.cast(code)[first::step].tolist()

    def lower(table: HandleTable, values: Any) -> bytes:
        numbers = _as_array(code, values)
        count = len(numbers)
        table.spend(count * width)
        room = (ctypes.c_uint64 * 2)()
        abi.list_new(room, count)
        if count:
            view = abi.memory_view(room[1], count * SIZE, abi.VIEW_WRITE)
            view[0::SIZE] = kind_byte * count
            view.cast(code)[first::step] = numbers
        return _FOUR.pack(_LIST, room[0], room[1], 0)

    return Codec(lift, lower)


def _as_array(code: str, values: Any) -> Any:
    if code == "B" and isinstance(values, bytes | bytearray):
        return values
    if isinstance(values, array) and values.typecode == code:
        return values
    return array(code, values)


def _new_values(lowered: Sequence[bytes]) -> tuple[int, int]:
    """Several values side by side in wasmtime's memory: how many, and where."""
    room = (ctypes.c_uint64 * 2)()
    abi.list_new(room, len(lowered))
    if lowered:
        ctypes.memmove(room[1], b"".join(lowered), len(lowered) * SIZE)
    return room[0], room[1]


def _list(kind: Any, number_of: ResourceNumber) -> Codec:
    element = codec_for(kind.element, number_of)
    lift_one, lower_one = element.lift, element.lower

    def lift(table: HandleTable, raw: bytes, at: int) -> list[Any]:
        count, address = _TWO.unpack_from(raw, at + 8)
        table.spend(count * SIZE)
        inner = ctypes.string_at(address, count * SIZE) if count else b""
        return [lift_one(table, inner, place) for place in range(0, count * SIZE, SIZE)]

    def lower(table: HandleTable, values: Any) -> bytes:
        table.spend(len(values) * SIZE)
        count, address = _new_values([lower_one(table, value) for value in values])
        return _FOUR.pack(_LIST, count, address, 0)

    return Codec(lift, lower)


def _tuple(kind: Any, number_of: ResourceNumber) -> Codec:
    parts = [codec_for(element, number_of) for element in kind.elements]
    lifts = [(part.lift, place * SIZE) for place, part in enumerate(parts)]
    lowers = [part.lower for part in parts]

    def lift(table: HandleTable, raw: bytes, at: int) -> tuple[Any, ...]:
        _count, address = _TWO.unpack_from(raw, at + 8)
        inner = ctypes.string_at(address, len(lifts) * SIZE)
        return tuple([lift_one(table, inner, place) for lift_one, place in lifts])

    def lower(table: HandleTable, values: Any) -> bytes:
        parts = [one(table, value) for one, value in zip(lowers, values, strict=True)]
        return _FOUR.pack(_TUPLE, *_new_values(parts), 0)

    return Codec(lift, lower)


def _record(kind: Any, number_of: ResourceNumber) -> Codec:
    fields = [(name, codec_for(part, number_of)) for name, part in kind.fields]
    stride = abi.RECORD_FIELD_BYTES

    def lift(table: HandleTable, raw: bytes, at: int) -> dict[str, Any]:
        count, address = _TWO.unpack_from(raw, at + 8)
        inner = ctypes.string_at(address, count * stride)
        return {
            name: part.lift(table, inner, place * stride + abi.NAME_BYTES)
            for place, (name, part) in enumerate(fields)
        }

    def lower(table: HandleTable, value: Any) -> bytes:
        parts = [
            _TWO.pack(*_new_name(name)) + part.lower(table, value[name]) for name, part in fields
        ]
        room = (ctypes.c_uint64 * 2)()
        abi.record_new(room, len(parts))
        ctypes.memmove(room[1], b"".join(parts), len(parts) * stride)
        return _FOUR.pack(_RECORD, room[0], room[1], 0)

    return Codec(lift, lower)


def _flags(_kind: Any, _number_of: ResourceNumber) -> Codec:
    def lift(_table: HandleTable, raw: bytes, at: int) -> set[str]:
        count, address = _TWO.unpack_from(raw, at + 8)
        inner = ctypes.string_at(address, count * abi.NAME_BYTES) if count else b""
        return {_read_name(inner, place * abi.NAME_BYTES) for place in range(count)}

    def lower(_table: HandleTable, value: Any) -> bytes:
        names = b"".join(_TWO.pack(*_new_name(name)) for name in sorted(value))
        room = (ctypes.c_uint64 * 2)()
        abi.flags_new(room, len(value))
        if names:
            ctypes.memmove(room[1], names, len(names))
        return _FOUR.pack(_FLAGS, room[0], room[1], 0)

    return Codec(lift, lower)


def _new_box(part: Codec | None, table: HandleTable, value: Any) -> int:
    if part is None:
        return 0
    address: int = abi.value_new(ctypes.create_string_buffer(part.lower(table, value), SIZE))
    return address


def _read_box(part: Codec | None, table: HandleTable, address: int) -> Any:
    if part is None or not address:
        return None
    return part.lift(table, ctypes.string_at(address, SIZE), 0)


def _maybe(kind: Any, number_of: ResourceNumber) -> Codec | None:
    return None if kind is None else codec_for(kind, number_of)


def _option(kind: Any, number_of: ResourceNumber) -> Codec:
    part = codec_for(kind.payload, number_of)
    none = _FOUR.pack(_OPTION, 0, 0, 0)

    def lift(table: HandleTable, raw: bytes, at: int) -> Any:
        return _read_box(part, table, _ONE.unpack_from(raw, at + 8)[0])

    def lower(table: HandleTable, value: Any) -> bytes:
        return none if value is None else _FOUR.pack(_OPTION, _new_box(part, table, value), 0, 0)

    return Codec(lift, lower)


def _result(kind: Any, number_of: ResourceNumber) -> Codec:
    ok, err = _maybe(kind.ok, number_of), _maybe(kind.err, number_of)

    def lift(table: HandleTable, raw: bytes, at: int) -> Any:
        address = _ONE.unpack_from(raw, at + 16)[0]
        return _read_box(ok, table, address) if raw[at + 8] else Err(_read_box(err, table, address))

    def lower(table: HandleTable, value: Any) -> bytes:
        if isinstance(value, Err):
            return _FOUR.pack(_RESULT, 0, _new_box(err, table, value.payload), 0)
        return _FOUR.pack(_RESULT, 1, _new_box(ok, table, value), 0)

    return Codec(lift, lower)


def _variant(kind: Any, number_of: ResourceNumber) -> Codec:
    cases = {name: _maybe(part, number_of) for name, part in kind.cases}

    def lift(table: HandleTable, raw: bytes, at: int) -> Case:
        tag = _read_name(raw, at + 8)
        return Case(tag, _read_box(cases[tag], table, _ONE.unpack_from(raw, at + 24)[0]))

    def lower(table: HandleTable, value: Any) -> bytes:
        box = _new_box(cases[value.tag], table, value.payload)
        return _FOUR.pack(_VARIANT, *_new_name(value.tag), box)

    return Codec(lift, lower)


def _number_of_handle(table: HandleTable, raw: bytes, at: int) -> int:
    host = ctypes.c_void_p()
    abi.check(
        abi.resource_any_to_host(
            table.context, _ONE.unpack_from(raw, at + 8)[0], ctypes.byref(host)
        )
    )
    number: int = abi.resource_host_rep(host)
    abi.resource_host_delete(host)
    return number


def _lift_borrow(table: HandleTable, raw: bytes, at: int) -> Any:
    return table.look_up(_number_of_handle(table, raw, at))


def _refuse_to_lower(_table: HandleTable, _value: Any) -> NoReturn:
    raise AssertionError("a host function cannot lend a resource to the guest")


def _own(type_number: int) -> Codec:
    def lift(table: HandleTable, raw: bytes, at: int) -> Any:
        return table.take(_number_of_handle(table, raw, at))

    def lower(table: HandleTable, value: Any) -> bytes:
        host = abi.resource_host_new(True, table.put(value), type_number)
        handle = ctypes.c_void_p()
        error = abi.resource_host_to_any(table.context, host, ctypes.byref(handle))
        abi.resource_host_delete(host)
        abi.check(error)
        return _FOUR.pack(_RESOURCE, handle.value or 0, 0, 0)

    return Codec(lift, lower)


_BUILDERS: Final[dict[type, Callable[[Any, ResourceNumber], Codec]]] = {
    wit.Bool: _bool,
    wit.Char: _char,
    wit.String: lambda _kind, _number_of: _text(_STRING),
    wit.EnumType: lambda _kind, _number_of: _text(_ENUM),
    wit.ListType: _list,
    wit.TupleType: _tuple,
    wit.RecordType: _record,
    wit.FlagsType: _flags,
    wit.OptionType: _option,
    wit.ResultType: _result,
    wit.VariantType: _variant,
}
