"""The page of programs is what the programs are, and none takes more lines than the paper's."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from tests.program_table import INFERLETS, PAGE, PAPER, c_lines, python_lines, render

C_TYPES = {"number": "int", "decimal": "float", "option": "string", "flag": "bool"}


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


def parameters(program: Path) -> dict[str, tuple[str, bool]]:
    """The type of each option that the source reads, and whether it may be left out."""
    if (program / "main.c").exists():
        source = (program / "main.c").read_text("utf-8")
        taken = re.findall(
            r'take_(number|decimal|option|flag)\(&\w+, TEXT\("--([a-z-]+)"\)', source
        )
        missing = re.findall(r'TEXT\("--([a-z-]+) is missing', source)
        return {name: (C_TYPES[by], name not in missing) for by, name in taken if name != "help"}
    tree = ast.parse((program / "main.py").read_text("utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    found = [option(node) for node in calls if isinstance(node.func, ast.Attribute)]
    return {name: told for each in found if each is not None for name, told in [each]}


def option(call: ast.Call) -> tuple[str, tuple[str, bool]] | None:
    """What one call of the parser adds."""
    assert isinstance(call.func, ast.Attribute)
    by, values = (
        call.func.attr,
        [each.value for each in call.args if isinstance(each, ast.Constant)],
    )
    more = {each.arg: getattr(each.value, "value", None) for each in call.keywords}
    if by == "add_model":
        return "model", ("string", True)
    if by not in ("add_number", "add_list", "add_argument"):
        return None
    kind = "bool" if more.get("action") == "store_true" else "string"
    if by == "add_number":
        is_whole = not any(isinstance(each, float) for each in (values[1], more.get("least")))
        kind = "int" if is_whole else "float"
    return str(values[0]).removeprefix("--"), (kind, not more.get("required"))


@pytest.mark.parametrize(
    "program",
    sorted(path.parent for path in INFERLETS.glob("*/Pie.toml")),
    ids=lambda path: path.name,
)
def test_a_manifest_names_the_options_of_its_program(program: Path) -> None:
    manifest = tomllib.loads((program / "Pie.toml").read_text("utf-8"))
    told = manifest.get("parameters", {})
    found = {name: (each["type"], each.get("optional", False)) for name, each in told.items()}
    assert found == parameters(program)
