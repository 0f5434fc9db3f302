"""`python -m tests.program_table` writes `inferlets/README.md`: programs, their lines, the paper's.

A line counts if it is neither blank nor comment nor documentation. The paper's are those of table 2
of "Pie: A Programmable Serving System for Emerging LLM Applications" (SOSP 2025), written in Rust.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Mapping
from pathlib import Path

INFERLETS = Path(__file__).parents[1] / "inferlets"
PAGE = INFERLETS / "README.md"
PAPER: Mapping[str, int] = {
    "agent-codeact": 62,
    "agent-react": 60,
    "agent-swarm": 95,
    "attention-sink": 60,
    "beam-search": 98,
    "constrained-decoding": 225,
    "graph-of-thought": 87,
    "hierarchical-attention": 42,
    "jacobi-decoding": 88,
    "modular-caching": 72,
    "output-validation": 52,
    "prefix-caching": 45,
    "recursion-of-thought": 106,
    "skeleton-of-thought": 82,
    "speculative-decoding": 255,
    "text-completion-py": 38,
    "tree-of-thought": 198,
    "watermarking": 43,
    "windowed-attention": 60,
}
SILENT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
HEADER = """# Programs

One folder each: the source, what it is, what it is expected to say. `pie-trio run NAME -- --help`
lists a program's arguments. `sdk/` is what they are written with, `python/` the interpreter that
runs those in Python.

Lines are those that are neither blank nor comment nor documentation; the paper's are those of its
table 2, in Rust. This page is written by `python -m tests.program_table`, and a test compares it.

| program | what it does | in | lines | paper |
|---|---|---|---:|---:|
"""


def python_lines(source: str) -> int:
    documentation: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            first = node.body[0]
            documentation |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in SILENT:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - documentation)


def c_lines(source: str) -> int:
    plain = re.sub(r"/\*.*?\*/|//[^\n]*", "", source, flags=re.DOTALL)
    return sum(1 for line in plain.splitlines() if line.strip())


def render() -> str:
    return HEADER + "".join(_row(path.parent) for path in sorted(INFERLETS.glob("*/Pie.toml")))


def _row(program: Path) -> str:
    what = (program / "README.md").read_text("utf-8").splitlines()[0].split(": ", 1)[1]
    in_python = program / "main.py"
    if in_python.exists():
        language, lines = "Python", python_lines(in_python.read_text("utf-8"))
    else:
        language, lines = "C", c_lines((program / "main.c").read_text("utf-8"))
    paper = PAPER.get(program.name, "")
    return f"| [{program.name}]({program.name}) | {what} | {language} | {lines} | {paper} |\n"


if __name__ == "__main__":
    PAGE.write_text(render(), "utf-8")
