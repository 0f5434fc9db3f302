"""No function of the kit is there for one program alone.

A name counts as used where it stands in the source; within the kit, not where a function of the
same name hands on to it. A name that lists, texts or mappings have too says nothing about who uses
it, so each of those is listed with its users. What is used by one program and by nothing else in
the kit is listed as well, with what makes it general; what is used by none is the language of the
interface itself, and has tests of its own.
"""

from __future__ import annotations

import ast
from collections import deque
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
    "json_schema": "one of the three languages of constraints",
    "lark": "one of the three languages of constraints",
    "multinomial": "a sampler that is built in",
    "regex": "one of the three languages of constraints",
    "start_child": "an interface of the engine",
}
AMBIGUOUS: Mapping[str, str] = {
    "copy": "of a chat and of what is seen: every fork",
    "decode": "beam-search, jacobi-decoding; of a queue: every generation",
    "encode": "hierarchical-attention, modular-caching, output-validation, and others",
    "extend": "hierarchical-attention; of a mask: whatever hides tokens",
    "get": "agent-swarm, messaging; of the store: whatever opens what was saved",
    "keys": "one of the five verbs of the key-value store",
    "remove": "whatever drops masked pages",
}
BUILT_IN = {name for kind in (list, dict, str, bytes, set, tuple, deque) for name in dir(kind)}


def functions(path: Path) -> Iterator[str]:
    """Public functions, classes and methods; properties too."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, kinds) and not node.name.startswith("_"):
            yield node.name


def names(path: Path) -> set[str]:
    """All that the source reads or calls by name, but for what hands on under the same name."""
    found: set[str] = set()

    def look(node: ast.AST, function: str) -> None:
        match node:
            case ast.Attribute(attr=name) | ast.Name(id=name) if name != function:
                found.add(name)
            case ast.FunctionDef(name=function) | ast.AsyncFunctionDef(name=function):
                pass
        for child in ast.iter_child_nodes(node):
            look(child, function)

    look(ast.parse(path.read_text("utf-8")), "")
    return found


def public() -> set[str]:
    return {name for path in KIT for name in functions(path)}


def lonely() -> dict[str, str]:
    """Each function that one program uses and nothing else, and that program."""
    users = {path.parent.name: names(path) for path in PROGRAMS}
    within = set[str]().union(*(names(path) for path in KIT))
    found = {}
    for function in public() - within - BUILT_IN:
        by = [program for program, used in users.items() if function in used]
        if len(by) == 1:
            found[function] = by[0]
    return found


def test_no_function_of_the_kit_serves_one_program_only() -> None:
    assert lonely().keys() == GENERAL.keys()


def test_whoever_uses_a_function_with_a_name_that_others_have_is_known() -> None:
    assert public() & BUILT_IN == AMBIGUOUS.keys()
