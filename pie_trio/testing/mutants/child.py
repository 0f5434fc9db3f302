"""The process that runs one mutant: it installs the patch, and only then imports anything of ours.

It is started as a file, so that not even its own package is imported before the hook is in place.
It reads its task from standard input and writes what it found, one JSON object a line, to standard
output. It never writes a file, and what it patched dies with it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType


class PatchedLoader(SourceFileLoader):
    """Compiles one module from its patched source; compiled files are neither read nor written."""

    def __init__(self, fullname: str, path: str, before: str, after: str) -> None:
        super().__init__(fullname, path)
        self._before = before
        self._after = after

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        text = Path(path).read_text("utf-8")
        assert text.count(self._before) == 1, f"the patch does not fit {path}"
        patched = text.replace(self._before, self._after)
        return compile(patched, path, "exec", dont_inherit=True)


class PatchFinder(MetaPathFinder):
    """Finds one module, before anybody else does."""

    def __init__(self, module: str, before: str, after: str) -> None:
        self._module = module
        self._before = before
        self._after = after

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._module:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        assert spec is not None, f"there is no module {fullname}"
        assert spec.origin is not None, f"{fullname} has no source"
        spec.loader = PatchedLoader(fullname, spec.origin, self._before, self._after)
        return spec


def install(module: str, before: str, after: str) -> None:
    """From now on this module is imported with the patch. It must not have been imported yet."""
    assert module not in sys.modules, f"{module} was imported before its patch"
    sys.meta_path.insert(0, PatchFinder(module, before, after))


def main() -> None:
    task = json.loads(sys.stdin.readline())
    sys.path[:] = task["path"]
    patch = task["patch"]
    if patch is not None:
        install(patch["module"], patch["before"], patch["after"])
    from pie_trio.testing.mutants.search import search

    search(task, sys.stdout)
    module = patch and sys.modules.get(patch["module"])
    if patch is not None and not isinstance(getattr(module, "__loader__", None), PatchedLoader):
        raise AssertionError(f"{patch['module']} was never imported: the patch was not in force")


if __name__ == "__main__":
    main()
