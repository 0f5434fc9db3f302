"""No function of the kit is there for one program alone.

A name counts as used where it stands in the source. What is used by one program and by nothing else
in the kit is listed here, with what makes it general; what is used by none is the language of the
interface itself, and has tests of its own.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support.kit import INFERLETS

KIT = sorted((INFERLETS / "sdk/inferlet").glob("*.py"))
PROGRAMS = sorted(INFERLETS.glob("*/main.py"))
GENERAL: Mapping[str, str] = {
    "beam_search": "a way of decoding, with any stop condition and any constraint",
    "decode_step": "the step that every other way of decoding is made of",
    "delete": "one of the five verbs of the key-value store",
    "fetch": "an interface of the engine",
    "for_min_p": "a sampler that is built in",
    "for_top_k": "a sampler that is built in",
    "for_top_k_top_p": "a sampler that is built in",
    "multinomial": "a sampler that is built in",
    "start_child": "an interface of the engine",
}


def functions(path: Path) -> Iterator[str]:
    """Public functions, classes and methods; properties too."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, kinds) and not node.name.startswith("_"):
            yield node.name


def names(path: Path) -> set[str]:
    """All that the source reads or calls by name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        match node:
            case ast.Attribute(attr=name) | ast.Name(id=name):
                found.add(name)
    return found


def lonely() -> dict[str, str]:
    """Each function that one program uses and nothing else, and that program."""
    users = {path.parent.name: names(path) for path in PROGRAMS}
    within = set[str]().union(*(names(path) for path in KIT))
    found = {}
    for function in {name for path in KIT for name in functions(path)} - within:
        by = [program for program, used in users.items() if function in used]
        if len(by) == 1:
            found[function] = by[0]
    return found


def test_no_function_of_the_kit_serves_one_program_only() -> None:
    assert lonely().keys() == GENERAL.keys()
