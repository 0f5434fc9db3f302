"""The sources as data: modules, their syntax trees and who imports whom, for tests about the code.

It reads files and imports none of them, so that a broken module is a finding and not a crash.
It never changes a file.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import attrs

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("pie_trio", "gpu_worker")


@attrs.frozen
class Module:
    """One Python file of ours."""

    name: str  # dotted
    path: Path
    text: str
    tree: ast.Module = attrs.field(eq=False)

    @property
    def label(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def package(self) -> str:
        is_package = self.path.name == "__init__.py"
        return self.name if is_package else self.name.rpartition(".")[0]


@cache
def modules(*folders: str) -> tuple[Module, ...]:
    """Every module below the folders, `pie_trio` and `gpu_worker` when none is named."""
    return tuple(
        _read(path)
        for folder in folders or PACKAGES
        for path in sorted((ROOT / folder).rglob("*.py"))
        if "__pycache__" not in path.parts
    )


def _read(path: Path) -> Module:
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    text = path.read_text("utf-8")
    return Module(name, path, text, ast.parse(text, str(path)))


def imports_at_run_time(module: Module) -> frozenset[str]:
    """Dotted names that the module imports, wherever it does; not those for the type checker."""
    return frozenset(name for node in _live_nodes(module.tree) for name in _imported(node, module))


def _live_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but the bodies of `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _live_nodes(child)


def _imported(node: ast.AST, module: Module) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        parent = module.package.split(".")
        above = parent[: len(parent) - node.level + 1]
        base = ".".join([*above, base]).rstrip(".")
    return [f"{base}.{alias.name}" for alias in node.names]


def targets(name: str, known: frozenset[str]) -> str:
    """The module that an imported dotted name lives in: the longest known prefix, or itself."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        prefix = ".".join(parts[:length])
        if prefix in known:
            return prefix
    return name


@cache
def import_graph() -> dict[str, frozenset[str]]:
    """Module -> modules that it imports; foreign ones by the name that was written."""
    known = frozenset(module.name for module in modules())
    return {
        module.name: frozenset(targets(name, known) for name in imports_at_run_time(module))
        for module in modules()
    }


def chain_to(start: str, goal: str) -> list[str] | None:
    """A chain of imports from `start` to the package `goal`, or None."""
    graph = import_graph()
    waiting = [[start]]
    seen = {start}
    while waiting:
        chain = waiting.pop(0)
        for name in sorted(graph.get(chain[-1], ())):
            if name == goal or name.startswith(goal + "."):
                return [*chain, name]
            if name not in seen:
                seen.add(name)
                waiting.append([*chain, name])
    return None


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
