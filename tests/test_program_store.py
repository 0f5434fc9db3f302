"""The program store: what is found, what is refused, and that a refusal leaves nothing behind."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie_trio.config import Limits
from pie_trio.errors import BadProgram, NotStored
from pie_trio.services.manifest import parse_manifest
from pie_trio.services.program_store import ProgramStore, hash_bytes
from tests.support.programs import component, manifest


@pytest.fixture
def store(tmp_path: Path) -> ProgramStore:
    return ProgramStore(tmp_path / "programs", Limits(), shipped=tmp_path / "shipped")


def _files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_an_installed_program_is_found_by_identity_and_after_a_restart(
    store: ProgramStore, tmp_path: Path
) -> None:
    installed = store.install(manifest("echo", "1.2.3"), component(), overwrite=False)
    again = ProgramStore(tmp_path / "programs", Limits(), shipped=tmp_path / "shipped")
    assert again.find("echo@1.2.3") == installed
    assert installed.artifact.read_bytes() == component()
    assert installed.artifact_hash == hash_bytes(component())


def test_a_bare_name_is_the_newest_version_by_number(store: ProgramStore) -> None:
    for version in ("0.9.0", "0.10.0", "0.2.5"):
        store.install(manifest("echo", version), component(), overwrite=False)
    found = store.find("echo")
    assert found is not None
    assert found.version == "0.10.0"
    assert [record.version for record in store.list()] == ["0.2.5", "0.9.0", "0.10.0"]


def test_a_name_that_is_a_prefix_of_another_finds_only_itself(store: ProgramStore) -> None:
    store.install(manifest("echo-two", "9.0.0"), component(), overwrite=False)
    assert store.find("echo") is None


def test_other_contents_under_the_same_identity_need_overwrite(store: ProgramStore) -> None:
    store.install(manifest("echo"), component(), overwrite=False)
    store.install(manifest("echo"), component(), overwrite=False)
    with pytest.raises(BadProgram, match="other contents"):
        store.install(manifest("echo"), component(8), overwrite=False)
    replaced = store.install(manifest("echo"), component(8), overwrite=True)
    found = store.find("echo@0.1.0")
    assert found == replaced
    assert found.artifact_hash == hash_bytes(component(8))


def test_check_compares_the_hashes_it_is_given(store: ProgramStore) -> None:
    record = store.install(manifest("echo"), component(), overwrite=False)
    assert store.check("echo", "0.1.0")
    assert store.check("echo", "0.1.0", record.artifact_hash, record.manifest_hash)
    assert not store.check("echo", "0.1.0", "00" * 32, record.manifest_hash)
    assert not store.check("echo", "0.1.0", record.artifact_hash, "00" * 32)
    assert not store.check("echo", "0.1.1")


BAD_INSTALLS = {
    "core module": (manifest("echo"), b"\0asm\x01\0\0\0"),
    "not wasm": (manifest("echo"), b"#!/bin/sh"),
    "not UTF-8": (manifest("echo", language="python"), b"\xff\xfe"),
    "empty source": (manifest("echo", language="python"), b" \n"),
    "unknown language": (manifest("echo", language="cobol"), component()),
    "escaping name": (manifest("../../echo"), component()),
    "absolute name": (manifest("/etc/echo"), component()),
    "empty name": (manifest(""), component()),
    "long name": (manifest("e" * 100), component()),
    "open version": (manifest("echo", "1.2"), component()),
    "version with a path": (manifest("echo", "1.2.3/.."), component()),
    "no TOML": ("[package", component()),
    "no package": ("", component()),
    "name is a number": ('[package]\nname = 3\nversion = "0.1.0"', component()),
    "deep": ("a = " + "[" * 20_000, component()),
    "large": (manifest("echo") + "#" * 100_000, component()),
    "artifact elsewhere": (manifest("echo", artifact="../main.wasm"), component()),
    "entry": (manifest("echo", entry="a; b", language="python"), b"pass"),
    "call": (manifest("echo", call="by name", language="python"), b"pass"),
    "dependencies": (manifest("echo") + '[dependencies]\nother = "1.0.0"\n', component()),
    "parameter": (manifest("echo") + '[parameters]\nn = {type = "tensor"}\n', component()),
}


@pytest.mark.parametrize("case", BAD_INSTALLS)
def test_a_refused_install_leaves_nothing_behind(
    case: str, store: ProgramStore, tmp_path: Path
) -> None:
    text, artifact = BAD_INSTALLS[case]
    with pytest.raises(BadProgram):
        store.install(text, artifact, overwrite=True)
    assert _files(tmp_path) == []
    assert store.list() == []


def test_an_install_that_fails_at_its_last_step_leaves_nothing_behind(
    store: ProgramStore, tmp_path: Path
) -> None:
    (tmp_path / "programs" / "programs").rmdir()  # so that the entry cannot be written
    with pytest.raises(NotStored, match="cannot be stored"):
        store.install(manifest("echo"), component(), overwrite=True)
    assert _files(tmp_path) == []


def test_a_failed_overwrite_keeps_what_was_there(store: ProgramStore, tmp_path: Path) -> None:
    store.install(manifest("echo"), component(), overwrite=False)
    with pytest.raises(BadProgram):
        store.install(manifest("echo"), b"junk", overwrite=True)
    found = store.find("echo")
    assert found is not None
    assert found.artifact.read_bytes() == component()


@pytest.mark.parametrize("text", ["../echo", "echo@", "@1.0.0", "", "echo@*", "*", "e*@0.1.0", "."])
def test_a_strange_identity_finds_nothing(text: str, store: ProgramStore) -> None:
    store.install(manifest("echo"), component(), overwrite=False)
    assert store.find(text) is None


def test_shipped_programs_are_found_and_hidden_by_installed_ones(
    store: ProgramStore, tmp_path: Path
) -> None:
    folder = tmp_path / "shipped" / "echo"
    folder.mkdir(parents=True)
    (folder / "Pie.toml").write_text(manifest("echo", artifact="guest.wasm"))
    assert store.list() == [], "a program that is not built yet is not offered"
    (folder / "guest.wasm").write_bytes(component(1))
    shipped = store.find("echo")
    assert shipped is not None
    assert shipped.artifact == folder / "guest.wasm"
    assert store.find("echo@0.1.0") == shipped
    store.install(manifest("echo"), component(2), overwrite=False)
    assert [record.artifact_hash for record in store.list()] == [hash_bytes(component(2))]


def test_a_shipped_program_that_was_rebuilt_is_read_again(
    store: ProgramStore, tmp_path: Path
) -> None:
    folder = tmp_path / "shipped" / "echo"
    folder.mkdir(parents=True)
    (folder / "Pie.toml").write_text(manifest("echo"))
    (folder / "echo.wasm").write_bytes(component(1))
    store.find("echo")
    (folder / "echo.wasm").write_bytes(component(2))
    found = store.find("echo")
    assert found is not None
    assert found.artifact_hash == hash_bytes(component(2))


def test_the_package_brings_its_programs() -> None:
    folder = Path(__file__).parents[1] / "inferlets"
    assert (folder / "text-completion" / "Pie.toml").is_file()


def test_a_single_file_is_a_program(store: ProgramStore, tmp_path: Path) -> None:
    path = tmp_path / "my program.py"
    path.write_text("async def main(args): ...")
    record = store.from_file(path)
    assert (record.identity, record.language) == ("my-program@0.0.0", "python")
    with pytest.raises(BadProgram, match="does not exist"):
        store.from_file(tmp_path / "absent.wasm")
    with pytest.raises(BadProgram, match="neither"):
        store.from_file(tmp_path / "text.txt")
    with pytest.raises(BadProgram, match=r"no Pie\.toml"):
        store.from_file(tmp_path)


@pytest.mark.parametrize(
    "body, runtime, arguments, expected",
    [
        ("async def main(args): return args", {}, ["a"], ["a"]),
        ("def go(args): return args", {"entry": "go"}, ["a"], ["a"]),
        ("async def go(a, b=2): return a + b", {"entry": "go", "call": "kwargs"}, ['{"a": 1}'], 3),
        ("def main(a=1): return a", {"call": "kwargs"}, [], 1),
    ],
)
async def test_a_python_program_has_a_main_whatever_its_entry_is_called(
    store: ProgramStore, body: str, runtime: dict[str, str], arguments: list[str], expected: object
) -> None:
    text = manifest("program", language="python", **runtime)
    record = store.install(text, body.encode(), overwrite=True)
    names: dict[str, Callable[[list[str]], Awaitable[object]]] = {}
    exec(record.python_source(), names)
    assert await names["main"](arguments) == expected
    assert record.python_source().startswith(body)


def test_the_store_is_the_owners_alone(store: ProgramStore, tmp_path: Path) -> None:
    folders = [tmp_path / "programs" / name for name in ("artifacts", "programs")]
    assert {folder.stat().st_mode & 0o777 for folder in folders} == {0o700}


@given(st.text(max_size=200))
def test_any_text_is_a_manifest_or_a_bad_program(text: str) -> None:
    with contextlib.suppress(BadProgram):
        parse_manifest(text, Limits())
