"""What a user installs has everything that it needs, and nothing that it does not."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from gpu_worker.c_library import INSTALLED, Recipe, file_name, find_compiler
from gpu_worker.native.build import PORTABLE, recipe_of, variants_of
from pie_trio.wasm.native.recipe import BORDER
from tests.source_tree import ROOT

KERNELS = "gpu_worker/native/source"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is built, in which an editable installation has left an old library."""
    source = tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns("__pycache__", INSTALLED)
    for name in ("pie_trio", "gpu_worker", "inferlets", "benchmarks"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitignore"):
        shutil.copy2(ROOT / name, source / name)
    old = source / KERNELS / INSTALLED / "kernels-old.so"
    old.parent.mkdir()
    old.write_bytes(b"old")
    return source


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its libraries are not optimised: how fast they are is no matter here."""
    folder = tmp_path_factory.mktemp("wheel")
    compiler = _compiler(folder, f'exec {find_compiler()} "$@" -O0')
    _build(source, folder, "wheel", {"CC": compiler})
    return next(folder.glob("*.whl"))


def _compiler(folder: Path, script: str) -> str:
    compiler = folder / "compiler"
    compiler.write_text(f"#!/bin/sh\n{script}\n")
    compiler.chmod(0o755)
    return str(compiler)


def _build(source: Path, folder: Path, target: str, environment: dict[str, str]) -> str:
    """Offline, with the build backend of this environment; the result is what is told."""
    ended = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)],
        cwd=source,
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return ended.stdout + ended.stderr


def _recipes() -> list[Recipe]:
    """All that an installation on this machine compiles."""
    return [*map(recipe_of, variants_of(platform.machine())), BORDER]


def _place(recipe: Recipe) -> str:
    return f"{recipe.source.relative_to(ROOT)}/{INSTALLED}/{file_name(recipe)}"


def _names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_every_program_travels_in_the_wheel(wheel: Path) -> None:
    names = _names(wheel)
    for manifest in (ROOT / "inferlets").glob("*/Pie.toml"):
        folder = f"inferlets/{manifest.parent.name}"
        artifact = tomllib.loads(manifest.read_text("utf-8"))["runtime"]["artifact"]
        assert {f"{folder}/Pie.toml", f"{folder}/{artifact}"} <= names


def test_the_contract_and_the_pretend_model_travel_in_the_wheel(wheel: Path) -> None:
    names = _names(wheel)
    assert "pie_trio/wasm/wit/exec.wit" in names
    assert "pie_trio/wasm/wit/deps/core/forward.wit" in names
    assert "pie_trio/services/pretend_model/tokenizer.json" in names
    assert {"pie_trio/py.typed", "gpu_worker/py.typed"} <= names


def test_the_c_sources_travel_in_the_wheel(wheel: Path) -> None:
    sources = {path for recipe in _recipes() for path in recipe.source.glob("*.[ch]")}
    assert {str(path.relative_to(ROOT)) for path in sources} <= _names(wheel)


def test_a_wheel_has_every_variant_compiled_and_nothing_of_an_earlier_build(wheel: Path) -> None:
    libraries = {name for name in _names(wheel) if name.endswith(".so")}
    assert libraries == {_place(recipe) for recipe in _recipes()}


def test_a_wheel_with_libraries_is_for_one_platform_and_any_python(wheel: Path) -> None:
    assert re.search(r"-py3-none-linux_\w+\.whl$", wheel.name), wheel.name


def test_an_installation_takes_its_own_libraries(wheel: Path, tmp_path: Path) -> None:
    """Though there is neither a compiler nor a cache, and none is made."""
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*command, "--target", str(tmp_path / "installed"), str(wheel)], check=True)
    script = (
        "import sys; from pathlib import Path; from gpu_worker.native import build, library;"
        "from pie_trio.wasm.native import open_native; cache = Path('cache');"
        "kernels = build.loaded_kernels(cache, build.PORTABLE, library.Library);"
        "sys.stdout.write(f'{kernels.name} {open_native(cache, sys.exit).path}')"
    )
    environment = {"PYTHONPATH": str(tmp_path / "installed"), "PATH": ""}
    told = _python(["-c", script], tmp_path, environment)
    border = tmp_path / "installed" / _place(BORDER)
    assert told == f"{file_name(recipe_of(PORTABLE))} {border}"
    assert not (tmp_path / "cache").exists()


def test_an_editable_installation_has_its_libraries_beside_the_sources(
    source: Path, tmp_path: Path
) -> None:
    compiler = _compiler(tmp_path, 'while [ "$1" != -o ]; do shift; done; echo made > "$2"')
    _build(source, tmp_path, "wheel:editable", {"CC": compiler})
    folders = {source / recipe.source.relative_to(ROOT) / INSTALLED for recipe in _recipes()}
    found = {str(path.relative_to(source)) for folder in folders for path in folder.iterdir()}
    assert found == {_place(recipe) for recipe in _recipes()}
    assert _names(next(tmp_path.glob("*.whl"))).isdisjoint(found)


def test_without_a_compiler_the_package_is_pure_and_says_why(source: Path, tmp_path: Path) -> None:
    told = _build(source, tmp_path, "wheel", {"CC": "/nonexistent", "PATH": ""})
    for recipe in _recipes():
        assert f"{recipe.name} is not compiled: there is no C compiler" in told
    pure = next(tmp_path.glob("*-py3-none-any.whl"))
    assert not [name for name in _names(pure) if name.endswith(".so")]
    environment = {"CC": "/nonexistent", "PATH": "", "PIE_TRIO_HOME": str(tmp_path / "home")}
    assert "Hello" in _run_unpacked(pure, tmp_path, environment)


def test_a_source_distribution_has_all_that_compiles(source: Path, tmp_path: Path) -> None:
    _build(source, tmp_path, "sdist", {})
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = {path for recipe in _recipes() for path in recipe.source.glob("*.[ch]")}
    assert {str(path.relative_to(ROOT)) for path in sources} <= names
    assert {"hatch_build.py", "pie_trio/wasm/native/recipe.py"} <= names
    assert not [name for name in names if name.endswith(".so")]


def test_no_test_travels_in_the_wheel(wheel: Path) -> None:
    assert not [name for name in _names(wheel) if re.match(r"(tests|docs)/", name)]


def test_an_unpacked_wheel_runs_a_program_without_the_sources(wheel: Path, tmp_path: Path) -> None:
    assert "Hello" in _run_unpacked(wheel, tmp_path, {})


def _run_unpacked(wheel: Path, folder: Path, environment: dict[str, str]) -> str:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    command = ["-m", "pie_trio", "run", "--pretend", "helloworld"]
    return _python(command, folder, {**environment, "PYTHONPATH": str(folder / "installed")})


def _python(arguments: list[str], folder: Path, environment: dict[str, str]) -> str:
    ended = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_what_is_imported_is_declared() -> None:
    """Every third-party package that production imports is a dependency."""
    from tests.source_tree import import_graph

    spelled = {"zmq": "pyzmq", "trio_websocket": "trio-websocket"}
    own = {"pie_trio", "gpu_worker", "inferlets"}
    imported = {
        target.partition(".")[0]
        for name, targets in import_graph().items()
        for target in targets
        if not name.startswith("pie_trio.testing")
    }
    foreign = {name for name in imported - own if name not in sys.stdlib_module_names}
    document = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    project = document["project"]
    lines = project["dependencies"] + project["optional-dependencies"]["build"]
    declared = {re.split(r"[<>=!~ \[]", line)[0] for line in lines}
    missing = {name for name in foreign if spelled.get(name, name) not in declared}
    assert not missing, sorted(missing)


def test_the_command_is_installed_by_its_name() -> None:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert document["project"]["scripts"] == {"pie-trio": "pie_trio.cli.main:run"}


def test_the_readme_names_the_commands_that_exist() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"\bmake (\w+)", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_readme_and_the_exit_codes_agree() -> None:
    from pie_trio.cli.exit_codes import ExitCode

    text = (ROOT / "README.md").read_text("utf-8")
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    assert told == {int(code) for code in ExitCode}


def test_the_readme_lists_every_program() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    for manifest in (ROOT / "inferlets").glob("*/Pie.toml"):
        assert f"`{manifest.parent.name}`" in text, manifest.parent.name
