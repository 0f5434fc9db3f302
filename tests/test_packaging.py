"""What a user installs has everything that it needs, and nothing that it does not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.source_tree import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built offline, from a copy, with the build backend of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pie_trio", "gpu_worker", "inferlets", "benchmarks"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, source / name)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=120)
    return next(folder.glob("*.whl"))


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


def test_the_sources_of_the_kernels_travel_in_the_wheel(wheel: Path) -> None:
    folder = "gpu_worker/native/source"
    assert {f"{folder}/{path.name}" for path in (ROOT / folder).iterdir()} <= _names(wheel)


def test_no_test_travels_in_the_wheel(wheel: Path) -> None:
    assert not [name for name in _names(wheel) if re.match(r"(tests|docs)/", name)]


def test_an_unpacked_wheel_runs_a_program_without_the_sources(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    command = [sys.executable, "-m", "pie_trio", "run", "--pretend", "helloworld"]
    ended = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "Hello" in ended.stdout or "hello" in ended.stdout


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
