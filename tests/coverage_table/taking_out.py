"""Takes a body out of a copy of the tree and runs a test there: it must fail.

A body is a function or class (`module:qualname`: emptied), a file (`file:path`: replaced by the
least program of its kind) or a line (`line:path:text`: removed). The working tree is only read; the
copy is a temporary folder that is gone afterwards, whatever happens.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import wasmtime

from tests.source_tree import ROOT

COPIED = ("pie_trio", "gpu_worker", "inferlets", "tests", "benchmarks", "docs")
COPIED_FILES = ("pyproject.toml", "README.md", "ARCHITECTURE.md", "Makefile")
TEST_SECONDS = 300
HANGING_SECONDS = 60  # a test that waits for what was taken out has failed
TESTS_FAILED = 1  # pytest's exit code when tests ran and some failed

# A component that exports inferlet:core/run, returns at once and has done nothing.
IDLE_COMPONENT = """
(component
  (core module $m (memory (export "memory") 1) (func (export "run") (result i32) i32.const 16))
  (core instance $i (instantiate $m))
  (func $run (result (result (error string)))
    (canon lift (core func $i "run") (memory (core memory $i "memory"))))
  (instance $exports (export "run" (func $run)))
  (export "inferlet:core/run" (instance $exports)))
"""
IDLE_SOURCE = '"""Does nothing."""\n\n\nasync def main(args):\n    return ""\n'


class StillPassesError(AssertionError):
    """The test does not miss the body."""


@contextmanager
def copied_tree() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pie-coverage-") as folder:
        root = Path(folder)
        for name in COPIED:
            if (ROOT / name).is_dir():
                skipped = shutil.ignore_patterns("__pycache__", ".pytest_cache")
                shutil.copytree(ROOT / name, root / name, ignore=skipped)
        for name in COPIED_FILES:
            if (ROOT / name).is_file():
                shutil.copy2(ROOT / name, root / name)
        yield root


def prove(test: str, body: str) -> None:
    """Raises `StillPassesError` with pytest's output if the test passes without the body."""
    with copied_tree() as root:
        take_out(root, body)
        run = run_tests(root, [test])
    if run.returncode != TESTS_FAILED:
        closing = "\n".join(run.stdout.splitlines()[-15:])
        raise StillPassesError(f"without {body}, {test} ends with {run.returncode}:\n{closing}")


def run_tests(root: Path, tests: list[str]) -> subprocess.CompletedProcess[str]:
    """Every one of them, in the copy; child processes find the copy first too."""
    options = ["-q", "-p", "no:cacheprovider", "-o", f"timeout={HANGING_SECONDS}"]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command,
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TEST_SECONDS,
        check=False,
    )


def take_out(root: Path, body: str) -> None:
    kind, _, rest = body.partition(":")
    path = place_of(root, body)
    if kind == "file":
        _replace_file(path)
    elif kind == "line":
        _remove_line(path, rest.partition(":")[2])
    else:
        _empty(path, rest)


def place_of(root: Path, body: str) -> Path:
    """The file that a body is in."""
    kind, _, rest = body.partition(":")
    if kind in ("file", "line"):
        return root / rest.partition(":")[0]
    base = root.joinpath(*kind.split("."))
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


def _replace_file(path: Path) -> None:
    assert path.is_file(), f"{path} is not there"
    if path.suffix == ".wasm":
        path.write_bytes(bytes(wasmtime.wat2wasm(IDLE_COMPONENT)))
    else:
        path.write_text(IDLE_SOURCE, "utf-8")


def _remove_line(path: Path, text: str) -> None:
    lines = path.read_text("utf-8").splitlines()
    kept = [line for line in lines if line.strip() != text]
    assert len(kept) == len(lines) - 1, f"{path} has {len(lines) - len(kept)} lines {text!r}"
    path.write_text("\n".join(kept) + "\n", "utf-8")


def _empty(path: Path, qualname: str) -> None:
    """The body becomes `pass`; the signature and the docstring's place stay."""
    lines = path.read_text("utf-8").splitlines()
    node = _find(ast.parse("\n".join(lines)), qualname.split("."))
    assert node is not None, f"{path} has no {qualname}"
    first, last = node.body[0], node.body[-1]
    assert last.end_lineno is not None
    indent = " " * first.col_offset
    before, after = lines[: first.lineno - 1], lines[last.end_lineno :]
    if first.lineno == node.lineno:  # a body on the line of its signature
        before = [*before, lines[first.lineno - 1][: first.col_offset]]
    path.write_text("\n".join([*before, f"{indent}pass", *after]) + "\n", "utf-8")


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _find(node: ast.AST, names: list[str]) -> Definition | None:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition) and child.name == names[0]:
            return child if len(names) == 1 else _find(child, names[1:])
    return None
