"""How C sources become a library that is loaded: the installed one, the kept one, one compiled now.

The sources are a few lines of their own; the kernels and the border go the same way.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import pytest

from gpu_worker.c_library import (
    INSTALLED,
    NotBuilt,
    Recipe,
    compiled,
    file_name,
    find_compiler,
    loaded,
)

FLAGS = ("-O1", "-fPIC", "-shared")
# What the loader gets of a library whose writing was not finished, or that is of another system.
BROKEN = b"\x7fELF and no more"


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """Sources of which nothing is compiled yet."""
    try:
        find_compiler()
    except NotBuilt as reason:
        pytest.skip(str(reason))
    source = tmp_path / "source"
    source.mkdir()
    made = Recipe("answer", source, FLAGS)
    _write(made, 1)
    return made


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def without_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], None]:
    def remove() -> None:
        monkeypatch.delenv("CC", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))

    return remove


def _write(recipe: Recipe, answer: int) -> None:
    (recipe.source / "answer.h").write_text(f"enum {{ ANSWER = {answer} }};\n")
    (recipe.source / "answer.c").write_text(
        '#include "answer.h"\nint answer(void) { return ANSWER; }\n'
    )


def _install(recipe: Recipe) -> Path:
    folder = recipe.source / INSTALLED
    folder.mkdir()
    return compiled(folder, recipe)


def _open(path: Path) -> tuple[Path, int]:
    return path, ctypes.CDLL(str(path)).answer()


def test_a_library_is_compiled_once_and_appears_whole(recipe: Recipe, cache: Path) -> None:
    first, answer = loaded(cache, recipe, _open)
    made = first.stat()
    assert answer == 1
    assert loaded(cache, recipe, _open) == (first, 1)
    assert first.stat().st_mtime_ns == made.st_mtime_ns
    assert list(cache.iterdir()) == [first]


def test_what_was_installed_needs_neither_a_compiler_nor_a_cache(
    recipe: Recipe, cache: Path, without_compiler: Callable[[], None]
) -> None:
    installed = _install(recipe)
    without_compiler()
    assert loaded(cache, recipe, _open) == (installed, 1)
    assert not cache.exists()


def test_what_was_installed_from_other_sources_is_not_taken(recipe: Recipe, cache: Path) -> None:
    _install(recipe)
    _write(recipe, 2)
    path, answer = loaded(cache, recipe, _open)
    assert (path.parent, answer) == (cache, 2)


def test_an_installed_library_that_cannot_be_loaded_is_passed_over(
    recipe: Recipe, cache: Path
) -> None:
    _install(recipe).write_bytes(BROKEN)
    path, answer = loaded(cache, recipe, _open)
    assert (path.parent, answer) == (cache, 1)


def test_a_kept_library_that_cannot_be_loaded_is_compiled_anew(recipe: Recipe, cache: Path) -> None:
    kept, _ = loaded(cache, recipe, lambda path: (path, 0))
    kept.write_bytes(BROKEN)
    assert loaded(cache, recipe, _open) == (kept, 1)


def test_what_is_kept_needs_no_compiler(
    recipe: Recipe, cache: Path, without_compiler: Callable[[], None]
) -> None:
    kept, _ = loaded(cache, recipe, _open)
    without_compiler()
    assert loaded(cache, recipe, _open) == (kept, 1)


def test_one_that_no_loader_takes_is_not_built(recipe: Recipe, cache: Path) -> None:
    def refuse(path: Path) -> None:
        raise OSError(f"{path.name}: no such runtime")

    _install(recipe)
    with pytest.raises(NotBuilt, match=r"answer is compiled, but .*no such runtime"):
        loaded(cache, recipe, refuse)


def test_the_name_changes_with_all_that_a_library_is_made_of(recipe: Recipe) -> None:
    names = {file_name(recipe), file_name(recipe._replace(flags=(*FLAGS, "-g")))}
    names.add(file_name(recipe._replace(libraries=("-lm",))))
    for changed in ("answer.c", "answer.h"):
        with (recipe.source / changed).open("a") as file:
            file.write("// changed\n")
        names.add(file_name(recipe))
    (recipe.source / "other.h").write_text("")
    names.add(file_name(recipe))
    assert len(names) == 6


def test_the_name_does_not_tell_which_compiler_was_there(
    recipe: Recipe, without_compiler: Callable[[], None]
) -> None:
    before = file_name(recipe)
    without_compiler()
    assert file_name(recipe) == before


def test_a_compiler_that_fails_is_quoted_and_leaves_nothing(
    recipe: Recipe, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho cannot do that >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    with pytest.raises(NotBuilt, match="cannot do that"):
        loaded(cache, recipe, _open)
    assert list(cache.iterdir()) == []


@pytest.mark.usefixtures("recipe")
def test_a_compiler_that_is_not_there_gives_way_to_one_that_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CC", "/nonexistent")
    assert Path(find_compiler()).exists()


def test_what_others_can_write_is_never_executed(recipe: Recipe, cache: Path) -> None:
    kept, _ = loaded(cache, recipe, _open)
    assert kept.parent == cache
    cache.chmod(0o777)
    with pytest.raises(NotBuilt, match="other users"):
        loaded(cache, recipe, _open)


def test_a_cache_that_cannot_be_made_is_told(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotBuilt, match="cannot be made"):
        loaded(tmp_path / "file" / "cache", recipe, _open)
