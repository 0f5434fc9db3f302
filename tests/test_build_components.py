"""Building a program folder: reproducible, atomic, and clear about what is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pie_trio.errors import BadProgram
from pie_trio.services.guest_build.inferlet import build_inferlet, read_recipe
from pie_trio.services.guest_build.python_component import interpreter_identity
from tests.support.kit import INFERLETS

C_PROGRAMS = sorted(path.parent for path in INFERLETS.glob("*/main.c"))
PYTHON_PROGRAMS = sorted(path.parent for path in INFERLETS.glob("*/main.py"))
MANIFEST = '[package]\nname = "p"\nversion = "0.1.0"\n[runtime]\nlanguage = "{}"\nsource = "{}"\n'


def build(directory: Path, output: Path) -> list[str]:
    said: list[str] = []
    build_inferlet(directory, output, said.append)
    return said


def write_program(directory: Path, language: str, source: str, text: str) -> Path:
    (directory / "Pie.toml").write_text(MANIFEST.format(language, source))
    (directory / source).write_text(text)
    return directory


@pytest.fixture
def nothing_left(tmp_path: Path) -> Iterator[Path]:
    """An output in a folder of its own, which must be empty at the end."""
    folder = tmp_path / "output"
    folder.mkdir()
    yield folder / "program.wasm"
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("program", C_PROGRAMS, ids=lambda path: path.name)
def test_a_shipped_component_is_rebuilt_byte_for_byte(program: Path, tmp_path: Path) -> None:
    """In a copy of its folder, so that a path that slips into the result shows."""
    elsewhere = tmp_path / "some where" / "else"
    shutil.copytree(program, elsewhere)
    output = tmp_path / "built" / "program.wasm"
    said = build(elsewhere, output)
    assert output.read_bytes() == (program / f"{program.name}.wasm").read_bytes()
    assert str(output.stat().st_size) in said[-1]


def test_the_shipped_text_completion_is_small() -> None:
    assert (INFERLETS / "text-completion/text-completion.wasm").stat().st_size < 13_000


@pytest.mark.parametrize("program", PYTHON_PROGRAMS, ids=lambda path: path.name)
def test_a_python_program_is_its_checked_source(program: Path, tmp_path: Path) -> None:
    output = tmp_path / "program.py"
    build(program, output)
    assert output.read_bytes() == (program / "main.py").read_bytes()


def test_a_c_error_is_told_in_the_words_of_the_compiler(tmp_path: Path, nothing_left: Path) -> None:
    program = write_program(tmp_path, "c", "main.c", "int run(void) { return nonsense; }")
    with pytest.raises(BadProgram, match="nonsense"):
        build(program, nothing_left)


def test_a_c_program_without_run_is_refused(tmp_path: Path, nothing_left: Path) -> None:
    program = write_program(tmp_path, "c", "main.c", '#include "pie.h"\n')
    with pytest.raises(BadProgram, match="run"):
        build(program, nothing_left)


def test_a_python_error_is_told_with_its_line(tmp_path: Path, nothing_left: Path) -> None:
    program = write_program(tmp_path, "python", "main.py", "x = 1\ndef main(:\n")
    with pytest.raises(BadProgram, match=r"main\.py:2: "):
        build(program, nothing_left)


def test_a_python_program_without_main_is_refused(tmp_path: Path, nothing_left: Path) -> None:
    program = write_program(tmp_path, "python", "main.py", "x = 1\n")
    with pytest.raises(BadProgram, match="defines no main"):
        build(program, nothing_left)


def test_a_folder_without_manifest_is_no_program(tmp_path: Path, nothing_left: Path) -> None:
    with pytest.raises(BadProgram, match=r"no Pie\.toml"):
        build(tmp_path, nothing_left)


def test_a_manifest_that_names_no_language_is_refused(tmp_path: Path, nothing_left: Path) -> None:
    (tmp_path / "Pie.toml").write_text('[package]\nname = "p"\n[runtime]\n')
    with pytest.raises(BadProgram, match="language"):
        build(tmp_path, nothing_left)


def test_an_unknown_language_is_refused(tmp_path: Path, nothing_left: Path) -> None:
    program = write_program(tmp_path, "cobol", "main.cob", "")
    with pytest.raises(BadProgram, match="cobol"):
        build(program, nothing_left)


def test_a_source_that_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Pie.toml").write_text(MANIFEST.format("c", "main.c"))
    with pytest.raises(BadProgram, match=r"main\.c, which is not there"):
        read_recipe(tmp_path)


def test_a_missing_tool_says_how_to_install_it(
    tmp_path: Path, nothing_left: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = write_program(tmp_path, "c", "main.c", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadProgram, match=r"zig is not installed: pip install 'pie-trio\[build\]'"):
        build(program, nothing_left)


def test_the_identity_of_the_interpreter_is_the_same_twice() -> None:
    assert interpreter_identity() == interpreter_identity()
