"""Guests: components that run in one Trio task each, and end with it.

`open_sandbox` holds what all guests of an engine share, `Sandbox.load` makes a compiled component
ready to run, `open_guest` starts one instance of it. When a guest's block is left, for whatever
reason, its fiber is gone, then its store and memory, then every host object that it held has been
closed, all without an await. A trap is the guest's fault; an exception of a host function comes
out as itself.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import trio
from wasmtime import Engine, WasmtimeError
from wasmtime import _ffi as ffi
from wasmtime.component import Component

from pie_trio.config import Limits
from pie_trio.errors import BadProgram, GuestFault
from pie_trio.wasm import abi
from pie_trio.wasm.border import Border, Borders
from pie_trio.wasm.codec import Err, codec_for
from pie_trio.wasm.faults import GuestExit, reason_of
from pie_trio.wasm.fiber import Fiber, Turns
from pie_trio.wasm.linker import HostInterfaces, Linker, link
from pie_trio.wasm.native import Native, open_native_ticker
from pie_trio.wasm.resources import HandleTable
from pie_trio.wasm.settings import new_engine
from pie_trio.wasm.signatures import find_run
from pie_trio.wasm.ticker import EpochSlices, FuelSlices, Slicer, Slicing, open_ticker
from pie_trio.wasm.values import Codec

FUEL_MAX: Final = 2**63  # counted only to cut it into slices


@attrs.define(eq=False)
class Sandbox:
    """One wasmtime engine with all that its guests share."""

    engine: Engine
    limits: Limits
    slicing: Slicing
    turns: Turns
    native: Native | None = None  # none: host calls go through Python
    borders: Borders = attrs.field(factory=dict)
    _programs: dict[Path, Program] = attrs.field(factory=dict)

    def load(self, artifact: Path, interfaces: HostInterfaces) -> Program:
        """Map a component that we compiled, and bind its imports; the second time is free."""
        program = self._programs.get(artifact)
        if program is None:
            program = _load(self, artifact, interfaces)
            self._programs[artifact] = program
        return program

    def close(self) -> None:
        """Give everything back; no guest may be alive."""
        assert not self.borders, "a guest outlives its sandbox"
        for program in self._programs.values():
            program.close()
        self._programs.clear()
        self.engine.close()


@asynccontextmanager
async def open_sandbox(
    limits: Limits, *, slicing: Slicing | None = None, native: Native | None = None
) -> AsyncIterator[Sandbox]:
    """What guests need to run, for as long as the block lasts."""
    slicing = EpochSlices(limits.slice_seconds) if slicing is None else slicing
    engine = new_engine(slicing, limits.async_stack_bytes)
    with _slices(abi.address(engine), slicing, native) as ticker:
        sandbox = Sandbox(engine, limits, slicing, Turns(ticker), native)
        try:
            yield sandbox
        finally:
            sandbox.close()


def _slices(
    engine_address: int, slicing: Slicing, native: Native | None
) -> AbstractContextManager[Slicer | None]:
    """What ends the slices, if they are made of time."""
    if native is None or isinstance(slicing, FuelSlices):
        return open_ticker(engine_address, slicing)
    return open_native_ticker(native, engine_address, slicing.seconds)


@attrs.define(eq=False)
class Program:
    """A component, ready to be instantiated any number of times."""

    sandbox: Sandbox
    component: Component
    linker: Linker
    run_index: int
    run_result: Codec

    def close(self) -> None:
        """Free the component; no guest of it may be alive."""
        abi.export_index_delete(self.run_index)
        self.linker.close()
        self.component.close()


def _load(sandbox: Sandbox, artifact: Path, interfaces: HostInterfaces) -> Program:
    component = _map(sandbox.engine, artifact)
    index, kind = find_run(sandbox.engine, component)
    try:
        linker = link(sandbox.engine, component, interfaces, sandbox.borders, sandbox.native)
    except BaseException:
        abi.export_index_delete(index)
        raise
    return Program(sandbox, component, linker, index, codec_for(kind.result, lambda _kind: 0))


def _map(engine: Engine, artifact: Path) -> Component:
    """Map the machine code; what was made for another machine or is damaged goes away."""
    try:
        return Component.deserialize_file(engine, str(artifact))
    except WasmtimeError as error:
        artifact.unlink(missing_ok=True)
        raise BadProgram(f"{artifact.name} does not fit, compile it again: {error}") from error


@attrs.define(eq=False)
class Guest:
    """One instance of a program: a store, a memory, a table of host objects, one fiber."""

    program: Program
    store: int
    border: Border
    fiber: Fiber
    instance: Any  # wasmtime's handle of the instance, in memory that outlives each call

    async def run(self) -> None:
        """Call `run`. Cancelled: the guest is dead, and the block around it closes what is left."""
        function = ffi.wasmtime_component_func_t()
        found = abi.instance_func(
            ctypes.byref(self.instance),
            self.border.handles.context,
            self.program.run_index,
            ctypes.byref(function),
        )
        assert found, "a program without `run` was loaded"
        answer = await self._call_run(function)
        if isinstance(answer, Err):
            raise GuestFault(answer.payload)

    async def _call_run(self, function: Any) -> Any:
        """All the memory that the call writes to lives in this frame, which outlives it."""
        result = ctypes.create_string_buffer(abi.VALUE_BYTES)
        error = ctypes.c_void_p()
        handles = self.border.handles
        future = abi.func_call_async(
            ctypes.byref(function), handles.context, None, 0, result, 1, ctypes.byref(error)
        )
        await self.fiber.drive(future)
        try:
            self._raise_failure(error)
        except GuestExit as end:
            return None if end.ok else Err("the guest exited with an error status")
        handles.allowance = handles.call_bytes
        answer = self.program.run_result.lift(handles, result.raw, 0)
        abi.value_delete(result)
        return answer

    async def _instantiate(self) -> None:
        error = ctypes.c_void_p()
        future = abi.linker_instantiate_async(
            self.program.linker.address,
            self.border.handles.context,
            abi.address(self.program.component),
            ctypes.byref(self.instance),
            ctypes.byref(error),
        )
        await self.fiber.drive(future)
        try:
            self._raise_failure(error)
        except GuestExit:
            raise GuestFault("the guest exited before `run` was called") from None

    def _raise_failure(self, error: ctypes.c_void_p) -> None:
        if not error.value:
            return
        message = abi.take_message(error.value)
        raised, self.border.raised = self.border.raised, None
        if raised is not None:
            raise raised
        raise GuestFault(reason_of(message))

    def _close(self) -> None:
        """The fiber is gone already; the store goes next, then what the guest held."""
        abi.store_delete(self.store)
        del self.program.sandbox.borders[self.border.handles.context]
        self.border.handles.close()


def _nothing() -> None:
    """Nobody listens."""


@asynccontextmanager
@trio.lowlevel.enable_ki_protection  # Ctrl-C waits until a guest is whole, or gone
async def open_guest(
    program: Program,
    host: Any,
    *,
    memory_bytes: int,
    on_park: Callable[[], None],
    on_wake: Callable[[], None],
    on_slice: Callable[[], None] = _nothing,
) -> AsyncIterator[Guest]:
    """One instance of the program, whose imports get `host` as their first argument.

    `on_park` is called when the guest's task is about to wait in a host call, `on_wake` when that
    wait is over, whether by an answer or by a cancellation; `on_slice` when the guest has used up a
    slice of computing.
    """
    guest = _new_guest(program, host, memory_bytes, (on_park, on_wake, on_slice))
    try:
        await guest._instantiate()
        yield guest
    finally:
        guest._close()


def _new_guest(
    program: Program,
    host: Any,
    memory_bytes: int,
    listeners: tuple[Callable[[], None], Callable[[], None], Callable[[], None]],
) -> Guest:
    sandbox = program.sandbox
    store = _new_store(sandbox, memory_bytes)
    context: int = abi.store_context(store)
    limits = sandbox.limits
    ready = ctypes.create_string_buffer(2)
    continuation = struct.pack("<QQQ", abi.IS_READY, ctypes.addressof(ready), 0)
    handles = HandleTable(context, limits.resources_per_guest, limits.host_call_bytes)
    border = Border(host, handles, continuation, ready)
    sandbox.borders[context] = border
    fiber = Fiber(border, sandbox.turns, *listeners)
    return Guest(program, store, border, fiber, ffi.wasmtime_component_instance_t())


def _new_store(sandbox: Sandbox, memory_bytes: int) -> int:
    limits = sandbox.limits
    store: int = abi.store_new(abi.address(sandbox.engine), None, None)
    abi.store_limiter(
        store,
        memory_bytes,
        limits.guest_table_elements,
        limits.guest_core_instances,
        limits.guest_tables,
        limits.guest_memories,
    )
    context = abi.store_context(store)
    if isinstance(sandbox.slicing, FuelSlices):
        abi.check(abi.fuel_set(context, FUEL_MAX))
        abi.check(abi.fuel_yield(context, sandbox.slicing.instructions))
    else:
        abi.epoch_yield(context, 1)
    return store
