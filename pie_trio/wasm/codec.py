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
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

import attrs
from wasmtime import component as wit

from pie_trio.wasm import abi
from pie_trio.wasm.resources import HandleTable
from pie_trio.wasm.values import (
    ENUM,
    FLAGS,
    FOUR,
    LIST,
    ONE,
    OPTION,
    RECORD,
    RESOURCE,
    RESULT,
    SIZE,
    STRING,
    TUPLE,
    TWO,
    VARIANT,
    Codec,
    bool_codec,
    char_codec,
    new_name,
    number_codec,
    number_list_codec,
    read_name,
    text_codec,
)

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
        return number_codec(*_NUMBERS[type(kind)])
    if isinstance(kind, wit.ListType) and type(kind.element) in _NUMBERS:
        return number_list_codec(*_NUMBERS[type(kind.element)])
    if isinstance(kind, wit.OwnType):
        return _own(number_of(kind.ty))
    if isinstance(kind, wit.BorrowType):
        return Codec(_lift_borrow, _refuse_to_lower)
    build = _BUILDERS.get(type(kind))
    if build is None:
        raise abi.WasmError(f"values of type {type(kind).__name__} cannot cross the border")
    return build(kind, number_of)


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
        count, address = TWO.unpack_from(raw, at + 8)
        table.spend(count * SIZE)
        inner = ctypes.string_at(address, count * SIZE) if count else b""
        return [lift_one(table, inner, place) for place in range(0, count * SIZE, SIZE)]

    def lower(table: HandleTable, values: Any) -> bytes:
        table.spend(len(values) * SIZE)
        count, address = _new_values([lower_one(table, value) for value in values])
        return FOUR.pack(LIST, count, address, 0)

    return Codec(lift, lower)


def _tuple(kind: Any, number_of: ResourceNumber) -> Codec:
    parts = [codec_for(element, number_of) for element in kind.elements]
    lifts = [(part.lift, place * SIZE) for place, part in enumerate(parts)]
    lowers = [part.lower for part in parts]

    def lift(table: HandleTable, raw: bytes, at: int) -> tuple[Any, ...]:
        _count, address = TWO.unpack_from(raw, at + 8)
        inner = ctypes.string_at(address, len(lifts) * SIZE)
        return tuple([lift_one(table, inner, place) for lift_one, place in lifts])

    def lower(table: HandleTable, values: Any) -> bytes:
        parts = [one(table, value) for one, value in zip(lowers, values, strict=True)]
        return FOUR.pack(TUPLE, *_new_values(parts), 0)

    return Codec(lift, lower)


def _record(kind: Any, number_of: ResourceNumber) -> Codec:
    fields = [(name, codec_for(part, number_of)) for name, part in kind.fields]
    stride = abi.RECORD_FIELD_BYTES

    def lift(table: HandleTable, raw: bytes, at: int) -> dict[str, Any]:
        count, address = TWO.unpack_from(raw, at + 8)
        inner = ctypes.string_at(address, count * stride)
        return {
            name: part.lift(table, inner, place * stride + abi.NAME_BYTES)
            for place, (name, part) in enumerate(fields)
        }

    def lower(table: HandleTable, value: Any) -> bytes:
        parts = [
            TWO.pack(*new_name(name)) + part.lower(table, value[name]) for name, part in fields
        ]
        room = (ctypes.c_uint64 * 2)()
        abi.record_new(room, len(parts))
        ctypes.memmove(room[1], b"".join(parts), len(parts) * stride)
        return FOUR.pack(RECORD, room[0], room[1], 0)

    return Codec(lift, lower)


def _flags(_kind: Any, _number_of: ResourceNumber) -> Codec:
    def lift(_table: HandleTable, raw: bytes, at: int) -> set[str]:
        count, address = TWO.unpack_from(raw, at + 8)
        inner = ctypes.string_at(address, count * abi.NAME_BYTES) if count else b""
        return {read_name(inner, place * abi.NAME_BYTES) for place in range(count)}

    def lower(_table: HandleTable, value: Any) -> bytes:
        names = b"".join(TWO.pack(*new_name(name)) for name in sorted(value))
        room = (ctypes.c_uint64 * 2)()
        abi.flags_new(room, len(value))
        if names:
            ctypes.memmove(room[1], names, len(names))
        return FOUR.pack(FLAGS, room[0], room[1], 0)

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
    none = FOUR.pack(OPTION, 0, 0, 0)

    def lift(table: HandleTable, raw: bytes, at: int) -> Any:
        return _read_box(part, table, ONE.unpack_from(raw, at + 8)[0])

    def lower(table: HandleTable, value: Any) -> bytes:
        return none if value is None else FOUR.pack(OPTION, _new_box(part, table, value), 0, 0)

    return Codec(lift, lower)


def _result(kind: Any, number_of: ResourceNumber) -> Codec:
    ok, err = _maybe(kind.ok, number_of), _maybe(kind.err, number_of)

    def lift(table: HandleTable, raw: bytes, at: int) -> Any:
        address = ONE.unpack_from(raw, at + 16)[0]
        return _read_box(ok, table, address) if raw[at + 8] else Err(_read_box(err, table, address))

    def lower(table: HandleTable, value: Any) -> bytes:
        if isinstance(value, Err):
            return FOUR.pack(RESULT, 0, _new_box(err, table, value.payload), 0)
        return FOUR.pack(RESULT, 1, _new_box(ok, table, value), 0)

    return Codec(lift, lower)


def _variant(kind: Any, number_of: ResourceNumber) -> Codec:
    cases = {name: _maybe(part, number_of) for name, part in kind.cases}

    def lift(table: HandleTable, raw: bytes, at: int) -> Case:
        tag = read_name(raw, at + 8)
        return Case(tag, _read_box(cases[tag], table, ONE.unpack_from(raw, at + 24)[0]))

    def lower(table: HandleTable, value: Any) -> bytes:
        box = _new_box(cases[value.tag], table, value.payload)
        return FOUR.pack(VARIANT, *new_name(value.tag), box)

    return Codec(lift, lower)


def _number_of_handle(table: HandleTable, raw: bytes, at: int) -> int:
    host = ctypes.c_void_p()
    abi.check(
        abi.resource_any_to_host(table.context, ONE.unpack_from(raw, at + 8)[0], ctypes.byref(host))
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
        return FOUR.pack(RESOURCE, handle.value or 0, 0, 0)

    return Codec(lift, lower)


_BUILDERS: Final[dict[type, Callable[[Any, ResourceNumber], Codec]]] = {
    wit.Bool: lambda _kind, _number_of: bool_codec(),
    wit.Char: lambda _kind, _number_of: char_codec(),
    wit.String: lambda _kind, _number_of: text_codec(STRING),
    wit.EnumType: lambda _kind, _number_of: text_codec(ENUM),
    wit.ListType: _list,
    wit.TupleType: _tuple,
    wit.RecordType: _record,
    wit.FlagsType: _flags,
    wit.OptionType: _option,
    wit.ResultType: _result,
    wit.VariantType: _variant,
}
