"""Builds one program folder: what `pie-trio build DIR -o FILE` does.

The folder's Pie.toml says the language and the source. A C program becomes a component. A Python
program is source that the interpreter component runs, so building it means checking it; when the
output is named .wasm it becomes a component of its own, with its own interpreter inside.
"""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path

import attrs

from pie_trio.errors import BadProgram
from pie_trio.services.guest_build.c_component import build_c, replace_atomically
from pie_trio.services.guest_build.python_component import build_python_component

Progress = Callable[[str], None]


@attrs.frozen
class Recipe:
    """What a manifest says about building its program."""

    name: str
    language: str
    source: str


def read_recipe(directory: Path) -> Recipe:
    """Raises `BadProgram` when the manifest is missing or does not say how to build."""
    manifest = directory / "Pie.toml"
    try:
        content = tomllib.loads(manifest.read_text(encoding="utf-8"))
        name = str(content["package"]["name"])
        runtime = content["runtime"]
        recipe = Recipe(name, str(runtime["language"]), str(runtime["source"]))
    except FileNotFoundError as error:
        raise BadProgram(f"{directory} has no Pie.toml") from error
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise BadProgram(f"{manifest}: {error!r}") from error
    if not (directory / recipe.source).is_file():
        raise BadProgram(f"{manifest} names the source {recipe.source}, which is not there")
    return recipe


def build_inferlet(directory: Path, output: Path, progress: Progress) -> None:
    """Builds the program in `directory` to the file `output`, which appears whole or not at all."""
    recipe = read_recipe(directory)
    progress(f"building {recipe.name} ({recipe.language})")
    if recipe.language == "c":
        build_c(directory, recipe.source, output)
    elif recipe.language == "python":
        build_python(directory / recipe.source, output)
    else:
        raise BadProgram(f"language {recipe.language!r} is not one of: c, python")
    progress(f"wrote {output} ({output.stat().st_size} bytes)")


def build_python(source: Path, output: Path) -> None:
    check_python(source)
    if output.suffix != ".wasm":
        replace_atomically(source, output)
        return
    with tempfile.TemporaryDirectory(prefix="pie-build-") as temporary:
        finished = Path(temporary) / "component.wasm"
        build_python_component(finished, program=source)
        replace_atomically(finished, output)


def check_python(source: Path) -> None:
    """Raises `BadProgram` with line and reason if the source does not compile or has no `main`."""
    text = source.read_text(encoding="utf-8")
    try:
        code = compile(text, source.name, "exec")
    except SyntaxError as error:
        raise BadProgram(f"{source.name}:{error.lineno}: {error.msg}") from error
    if "main" not in code.co_names:
        raise BadProgram(f"{source.name} defines no main")
