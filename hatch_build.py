"""Compiles the C libraries when the package is built for an installation.

Owns which of them a wheel carries: all variants of the kernels that its kind of processor may need,
and the border. An editable installation gets them beside the sources, where git ignores them.
Nothing is taken from an earlier build, which may have been another machine's.
It must never fail for want of a compiler, nor import what needs more than Python: what could not be
compiled is told, and compiled at the first start if there is a compiler then.
"""

import platform
import runpy
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from gpu_worker.c_library import INSTALLED, NotBuilt, Recipe, compiled  # noqa: E402
from gpu_worker.native.build import recipe_of, variants_of  # noqa: E402

BORDER = "pie_trio/wasm/native/recipe.py"  # run by its path: its package imports wasmtime
AT_ONCE = 2


class CompilingBuildHook(BuildHookInterface[Any]):
    """Hatchling calls it before and after it writes a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        self._folder = TemporaryDirectory(prefix="pie-trio-")
        made = self._compile_all()
        if version == "editable":
            _put_beside_sources(made)
        elif made:
            build_data["force_include"].update({str(path): to for path, to in made})
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{_platform()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        del version, build_data, artifact_path
        self._folder.cleanup()

    def _compile_all(self) -> list[tuple[Path, str]]:
        """Each library, and its place in the package."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            made = list(pool.map(self._compile, _recipes()))
        return [pair for pair in made if pair is not None]

    def _compile(self, recipe: Recipe) -> tuple[Path, str] | None:
        try:
            path = compiled(Path(self._folder.name), recipe)
        except NotBuilt as reason:
            self.app.display_warning(f"{recipe.name} is not compiled: {reason}")
            return None
        return path, str(recipe.source.relative_to(ROOT) / INSTALLED / path.name)


def _recipes() -> list[Recipe]:
    kernels = [recipe_of(variant) for variant in variants_of(platform.machine())]
    return [*kernels, runpy.run_path(str(ROOT / BORDER))["BORDER"]]


def _put_beside_sources(made: list[tuple[Path, str]]) -> None:
    for recipe in _recipes():
        shutil.rmtree(recipe.source / INSTALLED, ignore_errors=True)
    for path, place in made:
        to = ROOT / place
        to.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, to)  # as any other file of the tree, for all who may read it


def _platform() -> str:
    """This very system's: no library was looked for that all systems of a kind would have."""
    return next(tag for tag in platform_tags() if "manylinux" not in tag and "musllinux" not in tag)
