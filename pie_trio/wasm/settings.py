"""How wasmtime is configured: the same for the process that compiles and the one that runs.

A compiled component fits only an engine with the same settings, so their fingerprint is part of its
file name. What a guest does not need is off, above all what would escape the memory limit: shared
memories, 64-bit memories, a garbage-collected heap.
"""

from __future__ import annotations

from ctypes import c_size_t, c_uint64
from typing import Final

from wasmtime import Config, Engine
from wasmtime import _ffi as ffi

from pie_trio.wasm import abi
from pie_trio.wasm.ticker import FuelSlices, Slicing

REVISION: Final = 1  # raised with every change of what `new_engine` sets


def fingerprint(slicing: Slicing) -> str:
    """Names all that a compiled component depends on beside its source."""
    kind = "fuel" if isinstance(slicing, FuelSlices) else "epoch"
    return f"{abi.WASMTIME_VERSION}-{kind}-{REVISION}"


def new_engine(slicing: Slicing, stack_bytes: int) -> Engine:
    """An engine for fibers that can be interrupted."""
    abi.check_version()
    config = Config()
    pointer = config.ptr()
    ffi.wasmtime_config_concurrency_support_set(pointer, False)
    ffi.wasmtime_config_wasm_component_model_async_set(pointer, False)
    ffi.wasmtime_config_wasm_threads_set(pointer, False)
    ffi.wasmtime_config_wasm_memory64_set(pointer, False)
    ffi.wasmtime_config_wasm_multi_memory_set(pointer, False)
    ffi.wasmtime_config_wasm_gc_set(pointer, False)
    ffi.wasmtime_config_wasm_relaxed_simd_deterministic_set(pointer, True)
    # Host functions run on the guest's stack, above what the guest itself may use.
    ffi.wasmtime_config_async_stack_size_set(pointer, c_uint64(stack_bytes))
    ffi.wasmtime_config_max_wasm_stack_set(pointer, c_size_t(512 * 1024))
    if isinstance(slicing, FuelSlices):
        ffi.wasmtime_config_consume_fuel_set(pointer, True)
        ffi.wasmtime_config_cranelift_nan_canonicalization_set(pointer, True)
    else:
        ffi.wasmtime_config_epoch_interruption_set(pointer, True)
    return Engine(config)
