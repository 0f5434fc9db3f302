"""The compiled border, loaded: which types it knows, and what a linker binds of it.

Owns the C signatures and the order of the world that the library is told at the start. Whoever
binds a function keeps its `Function` for as long as a guest may call it. It must never hold
anything of a guest: the library finds a guest's border by the address of its store, call by call.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Coroutine, Sequence
from ctypes import c_int, c_uint64, c_void_p, py_object
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
from wasmtime import component as wit

from gpu_worker.c_library import NotBuilt, loaded
from pie_trio.wasm import abi
from pie_trio.wasm.border import Border, Borders, no_answer, suspend
from pie_trio.wasm.codec import Err
from pie_trio.wasm.native.recipe import BORDER

PARAMETERS_MAX: Final = 16
NODE: Final = struct.Struct("<III")  # kind, number or count, nodes
NOTHING: Final = 23
_LIST, _TUPLE, _OPTION, _RESULT, _OWN, _BORROW = 13, 15, 18, 19, 21, 22
_PLAIN: Final[dict[type, int]] = {
    wit.Bool: 0,
    wit.S8: 1,
    wit.U8: 2,
    wit.S16: 3,
    wit.U16: 4,
    wit.S32: 5,
    wit.U32: 6,
    wit.S64: 7,
    wit.U64: 8,
    wit.F32: 9,
    wit.F64: 10,
    wit.String: 12,
    wit.EnumType: 17,
}
_LEAVES: Final = (
    abi.bytes_new,
    abi.list_new,
    abi.value_new,
    abi.value_delete,
    abi.resource_any_to_host,
    abi.resource_host_to_any,
    abi.resource_host_new,
    abi.resource_host_rep,
    abi.resource_host_delete,
    abi.error_new,
    abi.future_poll,
    abi.epoch_increment,
    abi.epoch_deadline,
)
# Suspends the guest: (border, coroutine or None, what it waits for or its value, place).
Suspend = Callable[[Border, Coroutine[Any, Any, Any] | None, Any, int], None]


class Function(ctypes.Structure):
    """One host function as the library knows it; it refers to all that it needs."""

    _fields_ = (
        ("parameters", c_void_p),
        ("result", c_void_p),
        ("count", c_uint64),
        ("function", py_object),
        ("borders", py_object),
        ("suspend", py_object),
    )


@attrs.frozen(eq=False)
class Bound:
    """A function that the library serves, and what must live as long as it is linked."""

    callback: int
    function: Function
    types: tuple[Any, ...]

    @property
    def address(self) -> int:
        return ctypes.addressof(self.function)


class Native:
    """One loaded library."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._library = ctypes.PyDLL(self.path)
        self._world = _world()
        opening = self._library["pie_open"]
        opening.restype, opening.argtypes = c_uint64, (c_void_p, c_uint64)
        size = opening(self._world, PARAMETERS_MAX)
        assert size == ctypes.sizeof(Function), "the structures are those of the C sources"
        self._answer = self._library["pie_answer"]
        self._answer.restype = c_int
        self._answer.argtypes = (c_void_p, py_object, c_void_p, c_void_p, py_object)
        self.drop = self._address("pie_drop")

    def bind(
        self,
        function: Callable[..., Any],
        parameters: Sequence[Any],
        result: Any,
        number_of: Callable[[Any], int],
        borders: Borders,
        waits: bool,
    ) -> Bound | None:
        """The function, or None if one of its types is not known here."""
        nodes = [type_nodes(kind, number_of) for kind in parameters]
        answer = b"" if result is None else type_nodes(result, number_of)
        if len(nodes) > PARAMETERS_MAX or answer is None or None in nodes:
            return None
        texts = [b"".join(node for node in nodes if node is not None), answer]
        types = tuple(ctypes.create_string_buffer(text, len(text) or 1) for text in texts)
        made = Function(
            ctypes.addressof(types[0]),
            ctypes.addressof(types[1]) if answer else None,
            len(nodes),
            function,
            borders,
            self._suspending(types[1] if answer else None) if waits else None,
        )
        return Bound(self._address("pie_call_async" if waits else "pie_call"), made, types)

    def _suspending(self, kind: Any) -> Suspend:
        """What notes a call down that waits, with the type of its answer."""
        if kind is None:
            return partial(suspend, no_answer)
        return partial(suspend, partial(self._put_answer, ctypes.addressof(kind)))

    def _put_answer(self, kind: int, border: Border, place: int, value: Any) -> None:
        done = self._answer(kind, border, border.handles.context, place, value)
        assert done, "a failure has raised"

    def _address(self, name: str) -> int:
        return ctypes.cast(self._library[name], c_void_p).value or 0


def open_native(cache: Path, say: Callable[[str], None]) -> Native | None:
    """The compiled border, or none, and why is said."""
    try:
        return loaded(cache, BORDER, Native)
    except NotBuilt as reason:
        say(f"host calls take longer: {reason}")
        return None


def _world() -> Any:
    """All that the library cannot find by itself, in the order of its `World`."""
    objects: tuple[Any, ...] = (abi.check, Err)
    layout = type(
        "World",
        (ctypes.Structure,),
        {
            "_fields_": [
                *((f"leaf{place}", c_void_p) for place in range(len(_LEAVES))),
                *((f"object{place}", py_object) for place in range(len(objects))),
            ]
        },
    )
    made = layout(*(ctypes.cast(leaf, c_void_p) for leaf in _LEAVES), *objects)  # type: ignore[arg-type]
    return ctypes.pointer(made)


def type_nodes(kind: Any, number_of: Callable[[Any], int]) -> bytes | None:
    """A type and those in it, one after the other; None if it is not known here."""
    plain = _PLAIN.get(type(kind))
    if plain is not None:
        return NODE.pack(plain, 0, 1)
    match kind:
        case None:
            return NODE.pack(NOTHING, 0, 1)
        case wit.OwnType():
            return NODE.pack(_OWN, number_of(kind.ty), 1)
        case wit.BorrowType():
            return NODE.pack(_BORROW, 0, 1)
        case wit.ListType():
            return _around(_LIST, [kind.element], number_of)
        case wit.TupleType():
            return _around(_TUPLE, kind.elements, number_of)
        case wit.OptionType():
            return _around(_OPTION, [kind.payload], number_of)
        case wit.ResultType():
            return _around(_RESULT, [kind.ok, kind.err], number_of)
        case _:
            return None


def _around(outer: int, inner: Sequence[Any], number_of: Callable[[Any], int]) -> bytes | None:
    parts = [type_nodes(kind, number_of) for kind in inner]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    nodes = b"".join(known)
    return NODE.pack(outer, len(parts), 1 + len(nodes) // NODE.size) + nodes
