"""A component's imports, bound once to Python functions.

The names are taken from the component itself, because toolchains merge WASI versions. A callback
runs on the fiber's own stack: it converts the arguments, and either runs a plain function at once
(which therefore has to be tiny) or notes a coroutine down and suspends the guest; the instance's
task does the rest (`fiber`). An exception never crosses into wasmtime: it is kept, the guest traps,
and the task raises it again.
"""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import attrs
from wasmtime import Engine
from wasmtime import component as wit
from wasmtime.component import Component

from pie_trio.errors import BadProgram
from pie_trio.wasm import abi
from pie_trio.wasm.codec import codec_for
from pie_trio.wasm.resources import HandleTable
from pie_trio.wasm.signatures import check_signature, read_contract, signature
from pie_trio.wasm.values import Lift, Lower

# f(host, *arguments). A plain function runs inline on the fiber; an `async def` runs in the
# instance's own task and may await anything.
HostFunction = Callable[..., Any]
# Interface without its version -> WIT name of the function -> function.
HostInterfaces = Mapping[str, Mapping[str, HostFunction]]


@attrs.define
class PendingCall:
    """A host call that the guest waits for."""

    coroutine: Coroutine[Any, Any, Any]
    lower: Lower | None
    result_address: int


@attrs.define(eq=False)
class Border:
    """What the callbacks of one guest need to know, found by the address of its store."""

    host: Any
    handles: HandleTable
    continuation: bytes  # what suspends the guest until `ready[0]` is 1
    ready: ctypes.Array[ctypes.c_char]
    pending: PendingCall | None = None
    raised: BaseException | None = None


# Store address -> the guest that lives in it. One per sandbox, shared by all its linkers.
Borders = dict[int, Border]


@attrs.define(eq=False)
class Linker:
    """Every import of one component, defined. Closed after the last guest, before the engine."""

    address: int
    _kept_alive: list[Any] = attrs.field(factory=list)
    _resource_types: list[int] = attrs.field(factory=list)

    def close(self) -> None:
        """Give the linker and its types back to wasmtime."""
        abi.linker_delete(self.address)
        for resource_type in self._resource_types:
            abi.resource_type_delete(resource_type)
        self._resource_types.clear()
        self._kept_alive.clear()


def link(
    engine: Engine, component: Component, interfaces: HostInterfaces, borders: Borders
) -> Linker:
    """Bind every import; an import that nobody provides makes it a bad program."""
    linker = Linker(abi.linker_new(abi.address(engine)))
    try:
        _Binding(engine, component, interfaces, borders, linker).bind()
    except BaseException:
        linker.close()
        raise
    return linker


@attrs.define(eq=False)
class _Binding:
    """The work of `link`: one walk over the imports."""

    engine: Engine
    component: Component
    interfaces: HostInterfaces
    borders: Borders
    linker: Linker
    contract: Mapping[str, str] = attrs.field(factory=read_contract)
    # Type and name of each resource; its number is its place. The same type appears in each
    # interface that uses it.
    resources: list[tuple[Any, str]] = attrs.field(factory=list)

    def bind(self) -> None:
        destructor = abi.DESTRUCTOR_CALLBACK(_destructor(self.borders))
        self.linker._kept_alive.append(destructor)
        for name, extern in self.component.type.imports(self.engine).items():
            if not isinstance(extern.ty, wit.ComponentInstanceType):
                raise BadProgram(f"the program imports {name}, which is not an interface")
            self._bind_interface(name, extern.ty.exports(self.engine), destructor)
        abi.check(abi.linker_unknown_as_traps(self.linker.address, abi.address(self.component)))

    def _bind_interface(self, name: str, items: Mapping[str, Any], destructor: Any) -> None:
        plain_name = name.partition("@")[0]
        functions = self.interfaces.get(plain_name)
        if functions is None and not plain_name.startswith("wasi:"):
            raise BadProgram(f"the program imports {name}, which nobody provides")
        root = abi.linker_root(self.linker.address)
        instance = ctypes.c_void_p()
        encoded = name.encode()
        abi.check(abi.linker_add_instance(root, encoded, len(encoded), ctypes.byref(instance)))
        try:
            for item, extern in items.items():
                if isinstance(extern.ty, wit.ResourceType):
                    self._bind_resource(instance, item, extern.ty, destructor)
            for item, extern in items.items():
                if isinstance(extern.ty, wit.FuncType):
                    self._bind_function(instance, plain_name, item, extern.ty)
        finally:
            abi.linker_instance_delete(instance)
            abi.linker_instance_delete(root)

    def _bind_resource(self, instance: Any, name: str, kind: Any, destructor: Any) -> None:
        if not any(kind == known for known, _name in self.resources):
            self.resources.append((kind, name))
        if self._name_of(kind) != name:
            raise BadProgram(f"the program imports the resource {self._name_of(kind)} as {name}")
        resource_type = abi.resource_type_new(self._number_of(kind))
        self.linker._resource_types.append(resource_type)
        encoded = name.encode()
        abi.check(
            abi.linker_add_resource(
                instance,
                encoded,
                len(encoded),
                resource_type,
                ctypes.cast(destructor, ctypes.c_void_p),
                None,
                None,
            )
        )

    def _number_of(self, kind: Any) -> int:
        return next(place for place, (known, _name) in enumerate(self.resources) if known == kind)

    def _name_of(self, kind: Any) -> str:
        return self.resources[self._number_of(kind)][1]

    def _bind_function(self, instance: Any, interface: str, name: str, kind: Any) -> None:
        function = self.interfaces.get(interface, {}).get(name)
        if function is None:
            if interface.startswith("wasi:"):
                return  # a call of it traps, and the trap names it
            raise BadProgram(f"the program imports {interface}#{name}, which nobody provides")
        found = signature(kind, self._name_of)
        check_signature(f"{interface}#{name}", found, self.contract)
        lifts = [codec_for(part, self._number_of).lift for _name, part in kind.params]
        lower = codec_for(kind.result, self._number_of).lower if kind.result else None
        if inspect.iscoroutinefunction(function):
            callback: Any = abi.ASYNC_CALLBACK(_suspending(function, lifts, lower, self.borders))
            add = abi.linker_add_func_async
        else:
            callback = abi.SYNC_CALLBACK(_inline(function, lifts, lower, self.borders))
            add = abi.linker_add_func
        self.linker._kept_alive.append(callback)
        encoded = name.encode()
        pointer = ctypes.cast(callback, ctypes.c_void_p)
        abi.check(add(instance, encoded, len(encoded), pointer, None, None))


def _keep(border: Border, error: BaseException) -> int:
    """Keep the exception for the instance's task, and give wasmtime something to trap with."""
    border.raised = error
    handle: int = abi.error_new(b"the host refused")
    return handle


def _destructor(borders: Borders) -> Callable[..., int]:
    def destroy(_data: int, context: int, number: int) -> int:
        try:
            borders[context].handles.drop(number)
        except BaseException as error:
            return _keep(borders[context], error)
        return 0

    return destroy


def _inline(
    function: HostFunction, lifts: list[Lift], lower: Lower | None, borders: Borders
) -> Callable[..., int]:
    size = len(lifts) * abi.VALUE_BYTES
    places = list(zip(lifts, range(0, size, abi.VALUE_BYTES), strict=True))
    string_at, memmove, value_bytes = ctypes.string_at, ctypes.memmove, abi.VALUE_BYTES

    def call(
        _data: int, context: int, _type: int, arguments: int, _n: int, results: int, _m: int
    ) -> int:
        border = borders[context]
        try:
            handles = border.handles
            handles.allowance = handles.call_bytes
            raw = string_at(arguments, size) if size else b""
            answer = function(border.host, *[lift(handles, raw, at) for lift, at in places])
            if lower is not None:
                handles.allowance = handles.call_bytes
                memmove(results, lower(handles, answer), value_bytes)
        except BaseException as error:
            return _keep(border, error)
        return 0

    return call


def _suspending(
    function: HostFunction, lifts: list[Lift], lower: Lower | None, borders: Borders
) -> Callable[..., None]:
    size = len(lifts) * abi.VALUE_BYTES
    places = list(zip(lifts, range(0, size, abi.VALUE_BYTES), strict=True))

    def call(
        _data: int,
        context: int,
        _type: int,
        arguments: int,
        _n: int,
        results: int,
        _m: int,
        error_slot: int,
        continuation: int,
    ) -> None:
        # A callback that ends without a continuation aborts the process: it comes first.
        border = borders[context]
        ctypes.memmove(continuation, border.continuation, abi.CONTINUATION_BYTES)
        try:
            # The arguments die when this callback returns; the room for the result does not.
            handles = border.handles
            handles.allowance = handles.call_bytes
            raw = ctypes.string_at(arguments, size) if size else b""
            values = [lift(handles, raw, at) for lift, at in places]
            border.pending = PendingCall(function(border.host, *values), lower, results)
            border.ready[0] = b"\0"
        except BaseException as error:
            ctypes.c_uint64.from_address(error_slot).value = _keep(border, error)

    return call
