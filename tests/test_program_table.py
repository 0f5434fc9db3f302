"""The page of programs is what the programs are, and none takes more lines than the paper's."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.program_table import INFERLETS, PAGE, PAPER, c_lines, python_lines, render


def test_the_page_of_programs_is_current() -> None:
    assert PAGE.read_text("utf-8") == render(), "python -m tests.program_table"


@pytest.mark.parametrize("program", [name for name in PAPER if (INFERLETS / name).exists()])
def test_a_program_takes_no_more_lines_than_the_papers(program: str) -> None:
    assert python_lines((INFERLETS / program / "main.py").read_text("utf-8")) <= PAPER[program]


def test_a_completion_in_c_is_short() -> None:
    assert c_lines((INFERLETS / "text-completion/main.c").read_text("utf-8")) < 60


def test_documentation_and_comments_are_no_lines() -> None:
    assert (
        python_lines('"""Doc."""\n\n# why\nx = """a\nb"""  # text\n\n\ndef f():\n    """D."""\n')
        == 3
    )
    assert c_lines("/* why\n */\nint x; /* that */\n  // and\n") == 1


def flags(program: Path) -> set[str]:
    """Those that the source reads; a positional argument has no dashes and none here."""
    if (program / "main.c").exists():
        found = re.findall(r'TEXT\("--([a-z-]+)"\)', (program / "main.c").read_text("utf-8"))
        return {*found} - {"help"}
    source = (program / "main.py").read_text("utf-8")
    models = {"model"} if "add_model" in source else set[str]()
    return {*re.findall(r'add_(?:argument|number|list)\(\s*"--([a-z-]+)"', source)} | models


@pytest.mark.parametrize(
    "program",
    sorted(path.parent for path in INFERLETS.glob("*/Pie.toml")),
    ids=lambda path: path.name,
)
def test_a_manifest_names_the_flags_of_its_program(program: Path) -> None:
    manifest = tomllib.loads((program / "Pie.toml").read_text("utf-8"))
    assert {*manifest.get("parameters", {})} == flags(program)
