"""Values cross the border and come back as they were, for every kind of type.

The guest asks the host for a list of values and hands the same list back; whatever the type, it is
the same core code, so one guest per type is generated.
"""

from __future__ import annotations

import struct
from array import array
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pie_trio.config import Limits
from pie_trio.wasm.codec import Case, Err
from pie_trio.wasm.guest import Program, open_guest, open_sandbox
from pie_trio.wasm.linker import HostInterfaces
from pie_trio.wasm.native import Native
from pie_trio.wasm.ticker import EpochSlices
from tests.guests import compiled, compiled_border

GUEST = """
(component
  {types}
  (import "test:host/mirror" (instance $mirror
    {exports}
    (export "give" (func (result (list {type}))))
    (export "take" (func (param "values" (list {type}))))))
  (core module $memory_module
    (memory (export "memory") 64)
    (global $top (mut i32) (i32.const 1024))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $top) (i32.const 15)) (i32.const -16)))
      (global.set $top (i32.add (local.get $at) (local.get 3)))
      (local.get $at)))
  (core instance $memory_instance (instantiate $memory_module))
  (alias core export $memory_instance "memory" (core memory $memory))
  (alias core export $memory_instance "realloc" (core func $realloc))
  (core func $give (canon lower (func $mirror "give") (memory $memory) (realloc $realloc)))
  (core func $take (canon lower (func $mirror "take") (memory $memory)))
  (core module $m
    (import "h" "memory" (memory 64))
    (import "h" "give" (func $give (param i32)))
    (import "h" "take" (func $take (param i32 i32)))
    (func (export "run") (result i32)
      (call $give (i32.const 32))
      (call $take (i32.load (i32.const 32)) (i32.load (i32.const 36)))
      (i32.const 16)))
  (core instance $i (instantiate $m (with "h" (instance
    (export "memory" (memory $memory)) (export "give" (func $give)) (export "take" (func $take))))))
  (func $run (result (result (error string)))
    (canon lift (core func $i "run") (memory $memory)))
  (instance $run_interface (export "run" (func $run)))
  (export "inferlet:core/run" (instance $run_interface)))
"""

# A named type has to be defined, then exported under its name before it may be used.
NAMED = """(type $inner {definition})
    (export "named" (type $named (eq $inner)))"""


@attrs.define(eq=False)
class Mirror:
    """Gives what it was made of, keeps what it gets."""

    given: Any
    taken: Any = None

    def take(self, values: Any) -> None:
        self.taken = values


MIRROR: Final[HostInterfaces] = {
    "test:host/mirror": {"give": lambda mirror: mirror.given, "take": Mirror.take}
}


def _f32(value: float) -> float:
    single: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return single


async def _through(program: Program, values: Any) -> Any:
    mirror = Mirror(values)
    async with open_guest(
        program, mirror, memory_bytes=2**24, on_park=lambda: None, on_wake=lambda: None
    ) as guest:
        await guest.run()
    return mirror.taken


async def _mirrored(directory: Path, kind: str, values: Any, definition: str = "") -> Any:
    """What comes back through either border, which must be the same."""
    in_c = await _mirrored_by(compiled_border(), directory, kind, values, definition)
    in_python = await _mirrored_by(None, directory, kind, values, definition)
    assert in_c == in_python
    assert [type(value) for value in in_c] == [type(value) for value in in_python]
    return in_c


async def _mirrored_by(
    native: Native | None, directory: Path, kind: str, values: Any, definition: str = ""
) -> Any:
    exports = NAMED.format(definition=definition) if definition else ""
    text = GUEST.format(types="", exports=exports, type=kind)
    artifact = compiled(directory, text, EpochSlices())
    async with open_sandbox(Limits(), native=native) as sandbox:
        return await _through(sandbox.load(artifact, MIRROR), values)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("bool", [True, False]),
        ("s8", [-128, 127]),
        ("u8", b"\x00\x7f\xff"),
        ("s16", [-32768, 32767]),
        ("u16", [0, 65535]),
        ("s32", [-(2**31), 2**31 - 1]),
        ("u32", [0, 2**32 - 1, 7]),
        ("s64", [-(2**63), 2**63 - 1]),
        ("u64", [0, 2**64 - 1]),
        ("f32", [0.5, -1.25]),
        ("f64", [0.1, -1e300]),
        ("char", ["a", "é", "\U0001f600"]),
        ("string", ["", "text", "naïve \U0001f600"]),
        ("(list u8)", [b"", b"\x01\x02"]),
        ("(list u32)", [[], [1, 2, 3]]),
        ("(list (list string))", [[["a"], []], []]),
        ("(tuple u8 string f32)", [(1, "x", 0.5), (255, "", -2.0)]),
        ("(tuple (list u32) (list f32))", [([1, 2], [0.5, 0.25]), ([], [])]),
        ("(option u64)", [None, 2**40]),
        ("(option string)", [None, "", "y"]),
        ("(result u8 (error string))", [5, Err("no")]),
        ("(result)", [None, Err(None)]),
        ("(result (error string))", [None, Err("bad")]),
    ],
)
async def test_values_of_plain_types_come_back_equal(
    tmp_path: Path, kind: str, values: Any
) -> None:
    taken = await _mirrored(tmp_path, kind, values)

    assert taken == values
    assert type(taken) is type(values)


@pytest.mark.parametrize(
    ("definition", "values"),
    [
        ('(enum "low" "normal" "high")', ["high", "low"]),
        ('(flags "read" "write")', [{"read"}, set(), {"read", "write"}]),
        ('(record (field "a" u32) (field "b" (list u8)))', [{"a": 1, "b": b"x"}]),
        (
            '(variant (case "none") (case "text" string) (case "number" u64))',
            [Case("none"), Case("text", "t"), Case("number", 9)],
        ),
    ],
)
async def test_values_of_named_types_come_back_equal(
    tmp_path: Path, definition: str, values: Any
) -> None:
    assert await _mirrored(tmp_path, "$named", values, definition) == values


async def test_a_resource_comes_back_as_the_very_same_object(tmp_path: Path) -> None:
    things = [object(), object()]
    exports = '(export "thing" (type $thing (sub resource)))'
    text = GUEST.format(types="", exports=exports, type="(own $thing)")
    artifact = compiled(tmp_path, text, EpochSlices())
    for native in (compiled_border(), None):
        async with open_sandbox(Limits(), native=native) as sandbox:
            taken = await _through(sandbox.load(artifact, MIRROR), things)

        assert all(one is other for one, other in zip(taken, things, strict=True))


@pytest.mark.parametrize("values", [array("I", [1, 2, 3]), (1, 2, 3), range(1, 4)])
async def test_numbers_may_be_lowered_from_any_sequence(tmp_path: Path, values: Any) -> None:
    assert await _mirrored(tmp_path, "u32", values) == [1, 2, 3]


@pytest.mark.parametrize("values", [[-1], [2**32], ["text"], [0.5]])
async def test_a_value_of_the_wrong_type_is_our_bug_and_raises(tmp_path: Path, values: Any) -> None:
    for native in (compiled_border(), None):
        with pytest.raises((TypeError, OverflowError)):
            await _mirrored_by(native, tmp_path, "u32", values)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 2**32 - 1), max_size=40),
            st.lists(st.floats(width=32, allow_nan=False).map(_f32), max_size=40),
        ),
        max_size=20,
    )
)
async def test_any_distributions_come_back_equal(
    tmp_path_factory: pytest.TempPathFactory, values: Any
) -> None:
    directory = tmp_path_factory.getbasetemp()

    assert await _mirrored(directory, "(tuple (list u32) (list f32))", values) == values
