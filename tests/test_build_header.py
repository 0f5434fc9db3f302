"""The C header is what the generator makes of the WIT, and the generator leaves nothing out."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

import pytest

from pie_trio.services.guest_build.c_component import WORLD
from pie_trio.services.guest_build.c_header import c_function_name, generate_c_header
from tests.support.kit import INFERLETS


def header_of(wit: str, directory: Path) -> str:
    (directory / "world.wit").write_text(f"package a:b;\n{wit}\nworld w {{ import i; }}\n")
    return generate_c_header(directory, "w")


def test_the_committed_header_is_the_generated_one() -> None:
    with as_file(files("pie_trio") / "wasm" / "wit") as wit:
        assert (INFERLETS / "sdk/c/inferlet.h").read_text() == generate_c_header(wit, WORLD)


def test_lists_and_strings_are_a_pointer_and_a_length(tmp_path: Path) -> None:
    header = header_of("interface i { f: func(a: string, b: list<u32>) -> list<u8>; }", tmp_path)
    arguments = "const char *a, uint32_t a_length, const uint32_t *b, uint32_t b_length"
    assert f"void i_f({arguments}, list_uint8 *result);" in header


def test_an_option_is_a_flag_before_its_value(tmp_path: Path) -> None:
    header = header_of("interface i { f: func(a: option<f32>) -> option<u64>; }", tmp_path)
    assert "void i_f(bool a_some, float a, option_uint64 *result);" in header
    assert "typedef struct { bool some; uint64_t value; } option_uint64;" in header


def test_a_resource_can_be_made_used_and_dropped(tmp_path: Path) -> None:
    wit = "interface i { resource r { constructor(n: u32); size: func() -> u64; } }"
    header = header_of(wit, tmp_path)
    assert "i_r i_r_new(uint32_t n);" in header
    assert "uint64_t i_r_size(i_r self);" in header
    assert '"[resource-drop]r")\nvoid i_r_drop(i_r self);' in header


@pytest.mark.parametrize(
    "wit",
    [
        "interface i { record p { x: u32 } f: func(a: p); }",
        "interface i { variant v { x(u32) } f: func(a: v); }",
        "interface i { f: func() -> result<result<u32, u32>, list<option<flagged>>>; "
        "flags flagged { x } }",
    ],
)
def test_what_c_cannot_express_is_refused(wit: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot express"):
        header_of(wit, tmp_path)


def test_more_arguments_than_the_abi_passes_flat_lie_in_a_struct(tmp_path: Path) -> None:
    fields = ", ".join(f"a{number}: string" for number in range(9))
    wit = f"interface i {{ record p {{ {fields} }} f: func(n: u64, given: p); }}"
    header = header_of(wit, tmp_path)
    assert "typedef struct { uint64_t n; i_p given; } i_f_arguments;" in header
    assert "void i_f(const i_f_arguments *arguments);" in header
    assert "typedef struct { string a0; string a1;" in header


def test_a_variant_is_the_number_of_its_case_before_what_that_carries(tmp_path: Path) -> None:
    wit = "interface i { variant v { x(u32), y, z(string) } f: func() -> result<u32, v>; }"
    header = header_of(wit, tmp_path)
    assert "typedef struct { uint8_t tag; union { uint32_t x; string z; }; } i_v;" in header
    assert "union { uint32_t ok; i_v error; };" in header


def test_an_unknown_world_is_refused(tmp_path: Path) -> None:
    (tmp_path / "world.wit").write_text("package a:b;\nworld w {}\n")
    with pytest.raises(ValueError, match="no world named 'other'"):
        generate_c_header(tmp_path, "other")


@pytest.mark.parametrize(
    ("wit", "c"),
    [
        ("[method]queue.set-priority", "queue_set_priority"),
        ("[constructor]blob", "blob_new"),
        ("store-get", "store_get"),
    ],
)
def test_functions_are_named_after_their_resource(wit: str, c: str) -> None:
    assert c_function_name(wit) == c
