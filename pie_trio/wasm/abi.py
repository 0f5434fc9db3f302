"""The C API of wasmtime 50.0.1, as far as we use it.

Two views of one library: calls that may run guest code or free a store let other threads run
meanwhile (`_yielding`); leaf calls keep the interpreter lock, which is cheaper (`_leaf`). Sizes,
offsets and kind numbers belong to exactly this version; `check_version` refuses any other.
Nothing here owns anything: who calls `..._new` must call `..._delete`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_bool, c_char_p, c_int64, c_size_t, c_ssize_t, c_uint32, c_uint64, c_void_p
from importlib.metadata import version
from typing import Any, Final

from wasmtime import _ffi as ffi

WASMTIME_VERSION: Final = "50.0.1"

# One value as it crosses the border: a kind in the first byte, the union at byte 8, 32 in all.
VALUE_BYTES: Final = 32
RECORD_FIELD_BYTES: Final = 48  # a name (16), then a value
NAME_BYTES: Final = 16
CONTINUATION_BYTES: Final = 24

_yielding = ctypes.CDLL(str(ffi.filename))
_leaf = ctypes.PyDLL(str(ffi.filename))


def _declare(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    function = library[f"wasmtime_{name}"]
    function.restype = result
    function.argtypes = arguments
    return function


_P: Final = c_void_p
_NAME: Final = (c_char_p, c_size_t)

# Calls that may run guest code, or free what guests used.
future_poll = _declare(_yielding, "call_future_poll", c_bool, _P)
future_delete = _declare(_yielding, "call_future_delete", None, _P)
func_call_async = _declare(
    _yielding, "component_func_call_async", _P, _P, _P, _P, c_size_t, _P, c_size_t, _P
)
linker_instantiate_async = _declare(
    _yielding, "component_linker_instantiate_async", _P, _P, _P, _P, _P, _P
)
store_delete = _declare(_yielding, "store_delete", None, _P)

# Stores.
store_new = _declare(_leaf, "store_new", _P, _P, _P, _P)
store_context = _declare(_leaf, "store_context", _P, _P)
store_limiter = _declare(_leaf, "store_limiter", None, _P, *[c_int64] * 5)
epoch_increment = _declare(_leaf, "engine_increment_epoch", None, _P)
epoch_deadline = _declare(_leaf, "context_set_epoch_deadline", None, _P, c_uint64)
# The header promises an error here; the library returns nothing.
epoch_yield = _declare(_leaf, "context_epoch_deadline_async_yield_and_update", None, _P, c_uint64)
fuel_yield = _declare(_leaf, "context_fuel_async_yield_interval", _P, _P, c_uint64)
fuel_set = _declare(_leaf, "context_set_fuel", _P, _P, c_uint64)

# Components and what they export.
component_export_index = _declare(_leaf, "component_get_export_index", _P, _P, _P, *_NAME)
export_index_delete = _declare(_leaf, "component_export_index_delete", None, _P)
instance_func = _declare(_leaf, "component_instance_get_func", c_bool, _P, _P, _P, _P)

# Linkers.
linker_new = _declare(_leaf, "component_linker_new", _P, _P)
linker_delete = _declare(_leaf, "component_linker_delete", None, _P)
linker_root = _declare(_leaf, "component_linker_root", _P, _P)
linker_unknown_as_traps = _declare(
    _leaf, "component_linker_define_unknown_imports_as_traps", _P, _P, _P
)
linker_instance_delete = _declare(_leaf, "component_linker_instance_delete", None, _P)
linker_add_instance = _declare(_leaf, "component_linker_instance_add_instance", _P, _P, *_NAME, _P)
linker_add_func = _declare(_leaf, "component_linker_instance_add_func", _P, _P, *_NAME, _P, _P, _P)
linker_add_func_async = _declare(
    _leaf, "component_linker_instance_add_func_async", _P, _P, *_NAME, _P, _P, _P
)
linker_add_resource = _declare(
    _leaf, "component_linker_instance_add_resource", _P, _P, *_NAME, _P, _P, _P, _P
)

# Resources.
resource_type_new = _declare(_leaf, "component_resource_type_new_host", _P, c_uint32)
resource_type_delete = _declare(_leaf, "component_resource_type_delete", None, _P)
resource_any_to_host = _declare(_leaf, "component_resource_any_to_host", _P, _P, _P, _P)
resource_host_to_any = _declare(_leaf, "component_resource_host_to_any", _P, _P, _P, _P)
resource_host_new = _declare(_leaf, "component_resource_host_new", _P, c_bool, c_uint32, c_uint32)
resource_host_rep = _declare(_leaf, "component_resource_host_rep", c_uint32, _P)
resource_host_delete = _declare(_leaf, "component_resource_host_delete", None, _P)

# Values.
list_new = _declare(_leaf, "component_vallist_new_uninit", None, _P, c_size_t)
record_new = _declare(_leaf, "component_valrecord_new_uninit", None, _P, c_size_t)
flags_new = _declare(_leaf, "component_valflags_new_uninit", None, _P, c_size_t)
value_new = _declare(_leaf, "component_val_new", _P, _P)
value_delete = _declare(_leaf, "component_val_delete", None, _P)

# Errors.
error_new = _declare(_leaf, "error_new", _P, c_char_p)
error_delete = _declare(_leaf, "error_delete", None, _P)
error_message = _declare(_leaf, "error_message", None, _P, _P)

bytes_new: Callable[..., Any] = _leaf["wasm_byte_vec_new"]
bytes_new.restype = None  # type: ignore[attr-defined]
bytes_new.argtypes = (_P, c_size_t, c_char_p)  # type: ignore[attr-defined]
bytes_delete: Callable[..., Any] = _leaf["wasm_byte_vec_delete"]
bytes_delete.restype = None  # type: ignore[attr-defined]
bytes_delete.argtypes = (_P,)  # type: ignore[attr-defined]

# A view of foreign memory, without a copy and without a type for each length.
memory_view: Callable[..., Any] = ctypes.pythonapi["PyMemoryView_FromMemory"]
memory_view.restype = ctypes.py_object  # type: ignore[attr-defined]
memory_view.argtypes = (_P, c_ssize_t, ctypes.c_int)  # type: ignore[attr-defined]
VIEW_READ: Final = 0x100
VIEW_WRITE: Final = 0x200

# (data, context, type, arguments, count, results, count) -> error
SYNC_CALLBACK = ctypes.CFUNCTYPE(_P, _P, _P, _P, _P, c_size_t, _P, c_size_t)
# The same, then (error slot, continuation).
ASYNC_CALLBACK = ctypes.CFUNCTYPE(None, _P, _P, _P, _P, c_size_t, _P, c_size_t, _P, _P)
DESTRUCTOR_CALLBACK = ctypes.CFUNCTYPE(_P, _P, _P, c_uint32)

# The continuation of a pending host call asks this native function whether it is ready. With
# a two-byte buffer as its argument, strlen answers 0 while the first byte is 0, and 1 when it
# is 1. So a re-poll never enters Python.
IS_READY: Final = ctypes.cast(ctypes.CDLL(None)["strlen"], c_void_p).value or 0


copy = ctypes.memmove


class WasmError(Exception):
    """What wasmtime reported, with its whole chain of causes as the text."""


def check(error: int | None) -> None:
    """Turn a reported error into an exception, and free it."""
    if error:
        raise WasmError(take_message(error))


def take_message(error: int) -> str:
    """Read the text of a reported error, and free it."""
    text = (c_uint64 * 2)()
    error_message(error, text)
    message = ctypes.string_at(text[1], text[0]).decode("utf-8", "replace")
    bytes_delete(text)
    error_delete(error)
    return message


def address(managed: Any) -> int:
    """The address that one of wasmtime's own Python objects stands for."""
    return ctypes.cast(managed.ptr(), c_void_p).value or 0


def check_version() -> None:
    """Refuse to run on a library whose layout we have not proved."""
    installed = version("wasmtime")
    assert installed == WASMTIME_VERSION, (
        f"wasmtime {WASMTIME_VERSION} is needed, {installed} is installed"
    )
    sizes = (
        ctypes.sizeof(ffi.wasmtime_component_val),
        ctypes.sizeof(ffi.wasmtime_component_vallist),
    )
    assert sizes == (VALUE_BYTES, 16), f"the value layout is {sizes}, not (32, 16)"
