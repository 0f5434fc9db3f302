"""The codec of the client protocol: bytes to message and back.

Sans-io and pure: both the gateway and our client stand on it. What does not decode raises
`ProtocolError`, which carries the number of the request if one could be read, so that somebody who
waits for an answer gets one. It never raises anything else, whatever the bytes are.
"""

from __future__ import annotations

import types
import typing
from functools import cache
from typing import TypeGuard

import attrs
import msgpack

from pie_trio.errors import BadRequest
from pie_trio.services.client_messages import NOT_SERVED, ClientMessage, Request, ServerMessage

NO_REQUEST = 0  # official clients count from 1 and ignore an answer to a request they did not make
AUTHENTICATED = (
    "Authenticated (Engine disabled authentication)"  # 0.4 compares it, letter by letter
)
LISTS_MAX = 4  # a message has at most two lists and one map
LIST_LENGTH_MAX = 16_384
INTEGER_MAX = 2**32 - 1


class ProtocolError(BadRequest):
    """These bytes are not a message that we know."""

    def __init__(self, text: str, corr_id: int = NO_REQUEST) -> None:
        super().__init__(text)
        self.corr_id = corr_id


def encode(message: Request | ClientMessage | ServerMessage) -> bytes:
    """One frame. Optional fields without a value are left out, as the official clients do."""
    kind: type = type(message)
    fields = {
        name: value for name in _field_names(kind) if (value := getattr(message, name)) is not None
    }
    return bytes(msgpack.packb({"type": message.type, **fields}, unicode_errors="replace"))


@cache
def _field_names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in attrs.fields(kind))


def decode_from_client(frame: bytes | str) -> ClientMessage:
    """Raises `ProtocolError`."""
    message = _decode(frame, ClientMessage)
    assert isinstance(message, ClientMessage), "only messages of the union are decoded"
    return message


def decode_from_server(frame: bytes | str) -> ServerMessage:
    """Raises `ProtocolError`."""
    message = _decode(frame, ServerMessage)
    assert isinstance(message, ServerMessage), "only messages of the union are decoded"
    return message


def _decode(frame: bytes | str, union: types.UnionType) -> object:
    fields = _unpack(frame)
    number = fields.get("corr_id")
    corr_id = number if _is_integer(number) else NO_REQUEST
    kind = fields.get("type")
    if not isinstance(kind, str):
        raise ProtocolError("the message has no type", corr_id)
    if kind in NOT_SERVED:
        raise ProtocolError(f"{kind} is not served", corr_id)
    for message_class in typing.get_args(union):
        if message_class.type == kind:
            return message_class(**_checked(message_class, kind, fields, corr_id))
    raise ProtocolError(f"unknown message type {kind[:80]!r}", corr_id)


def _unpack(frame: bytes | str) -> dict[str, object]:
    if isinstance(frame, str):
        raise ProtocolError("a text frame; messages are binary frames of MessagePack")
    lists = 0

    def count(container: object) -> object:
        nonlocal lists
        lists += 1
        if lists > LISTS_MAX:
            raise ValueError("too many lists and maps in one message")
        return container

    try:
        value = msgpack.unpackb(
            frame,
            raw=False,
            list_hook=count,
            object_hook=count,
            max_array_len=LIST_LENGTH_MAX,
            max_map_len=64,
        )
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError, OverflowError) as error:
        raise ProtocolError(f"the frame is not MessagePack: {error}"[:300]) from None
    if not _is_map(value):
        raise ProtocolError("the frame is not a map")
    return value


def _is_map(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _checked(
    message_class: type, kind: str, fields: dict[str, object], corr_id: int
) -> dict[str, object]:
    """The fields of this message; keys that it does not have are ignored."""
    checked: dict[str, object] = {}
    for name, (expected, is_required) in _shape(message_class).items():
        if name not in fields:
            if is_required:
                raise ProtocolError(f"{kind}: {name} is missing", corr_id)
            continue
        value = fields[name]
        if not _fits(value, expected):
            raise ProtocolError(f"{kind}: {name} is not {_spell(expected)}", corr_id)
        checked[name] = tuple(value) if isinstance(value, list) else value
    return checked


@cache
def _shape(message_class: type) -> dict[str, tuple[object, bool]]:
    hints = typing.get_type_hints(message_class)
    return {
        field.name: (hints[field.name], field.default is attrs.NOTHING)
        for field in attrs.fields(message_class)
    }


def _fits(value: object, kind: object) -> bool:
    if isinstance(kind, types.UnionType):
        return any(_fits(value, member) for member in typing.get_args(kind))
    if kind is int:
        return _is_integer(value) and 0 <= value <= INTEGER_MAX
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        return isinstance(value, list) and all(_fits(each, item) for each in value)
    assert isinstance(kind, type), "messages have fields of plain types, tuples and unions only"
    return isinstance(value, kind)


def _spell(kind: object) -> str:
    if kind is int:
        return f"an integer between 0 and {INTEGER_MAX}"
    return kind.__name__ if isinstance(kind, type) else str(kind)
