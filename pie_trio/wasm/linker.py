"""A component's imports, bound once to Python functions.

The names are taken from the component itself, because toolchains merge WASI versions. What a call
meets is in C where there is a compiled border that knows the types (`native`), else in Python
(`border`). A linker owns its callbacks: they live until it is closed, after the last guest.
"""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from wasmtime import Engine
from wasmtime import component as wit
from wasmtime.component import Component

from pie_trio.errors import BadProgram
from pie_trio.wasm import abi
from pie_trio.wasm.border import Borders, destructor, inline, suspending
from pie_trio.wasm.codec import codec_for
from pie_trio.wasm.native import Native
from pie_trio.wasm.signatures import check_signature, read_contract, signature

# f(host, *arguments). A plain function runs inline on the fiber; an `async def` may await anything.
HostFunction = Callable[..., Any]
# Interface without its version -> WIT name of the function -> function.
HostInterfaces = Mapping[str, Mapping[str, HostFunction]]


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
    engine: Engine,
    component: Component,
    interfaces: HostInterfaces,
    borders: Borders,
    native: Native | None = None,
) -> Linker:
    """Bind every import; an import that nobody provides makes it a bad program."""
    linker = Linker(abi.linker_new(abi.address(engine)))
    try:
        _Binding(engine, component, interfaces, borders, linker, native).bind()
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
    native: Native | None
    contract: Mapping[str, str] = attrs.field(factory=read_contract)
    # Type and name of each resource; its number is its place. The same type appears in each
    # interface that uses it.
    resources: list[tuple[Any, str]] = attrs.field(factory=list)

    def bind(self) -> None:
        destroy = self._destructor()
        for name, extern in self.component.type.imports(self.engine).items():
            if not isinstance(extern.ty, wit.ComponentInstanceType):
                raise BadProgram(f"the program imports {name}, which is not an interface")
            self._bind_interface(name, extern.ty.exports(self.engine), destroy)
        abi.check(abi.linker_unknown_as_traps(self.linker.address, abi.address(self.component)))

    def _destructor(self) -> tuple[Any, Any]:
        """What a dropped resource calls, and with what."""
        if self.native is not None:
            return self.native.drop, id(self.borders)  # the sandbox keeps them
        made = abi.DESTRUCTOR_CALLBACK(destructor(self.borders))
        self.linker._kept_alive.append(made)
        return ctypes.cast(made, ctypes.c_void_p), None

    def _bind_interface(
        self, name: str, items: Mapping[str, Any], destroy: tuple[Any, Any]
    ) -> None:
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
                    self._bind_resource(instance, item, extern.ty, destroy)
            for item, extern in items.items():
                if isinstance(extern.ty, wit.FuncType):
                    self._bind_function(instance, plain_name, item, extern.ty)
        finally:
            abi.linker_instance_delete(instance)
            abi.linker_instance_delete(root)

    def _bind_resource(self, instance: Any, name: str, kind: Any, destroy: tuple[Any, Any]) -> None:
        if not any(kind == known for known, _name in self.resources):
            self.resources.append((kind, name))
        if self._name_of(kind) != name:
            raise BadProgram(f"the program imports the resource {self._name_of(kind)} as {name}")
        resource_type = abi.resource_type_new(self._number_of(kind))
        self.linker._resource_types.append(resource_type)
        encoded = name.encode()
        abi.check(
            abi.linker_add_resource(instance, encoded, len(encoded), resource_type, *destroy, None)
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
        waits = inspect.iscoroutinefunction(function)
        callback, data = self._in_c(function, kind, waits) or self._in_python(function, kind, waits)
        add = abi.linker_add_func_async if waits else abi.linker_add_func
        encoded = name.encode()
        abi.check(add(instance, encoded, len(encoded), callback, data, None))

    def _in_c(self, function: HostFunction, kind: Any, waits: bool) -> tuple[Any, Any] | None:
        """The callback and its data, if the compiled border knows all types."""
        if self.native is None:
            return None
        parts = [part for _name, part in kind.params]
        bound = self.native.bind(function, parts, kind.result, self._number_of, self.borders, waits)
        if bound is None:
            return None
        self.linker._kept_alive.append(bound)
        return bound.callback, bound.address

    def _in_python(self, function: HostFunction, kind: Any, waits: bool) -> tuple[Any, Any]:
        lifts = [codec_for(part, self._number_of).lift for _name, part in kind.params]
        lower = codec_for(kind.result, self._number_of).lower if kind.result else None
        if waits:
            callback: Any = abi.ASYNC_CALLBACK(suspending(function, lifts, lower, self.borders))
        else:
            callback = abi.SYNC_CALLBACK(inline(function, lifts, lower, self.borders))
        self.linker._kept_alive.append(callback)
        return ctypes.cast(callback, ctypes.c_void_p), None
