"""The rules of the house catch who breaks them: one copy of the tree with every sin in it."""

from __future__ import annotations

import ast
import re

from tests.coverage_table.taking_out import copied_tree, run_tests
from tests.source_tree import ROOT, functions

MACHINE_PATH = "/" + "root/somewhere"
NOTE = "TO" + "DO"
SINFUL_SERVICE = f"""
import time
import contextlib
import torch
import trio
import pie_trio.cli.main

waiting = []
TABLE = {{}}
TABLE.update(a=1)  # {NOTE}: later


def sin():
    print(time.time())
    trio.open_memory_channel(100)
    with contextlib.suppress(Exception):
        trio.CancelScope(shield=True)
{chr(10).join("    sin()" for _ in range(300))}
"""
SINFUL_ACTOR = '"""Imports its neighbour."""\n\nimport pie_trio.actors.model\n'
SINFUL_WORKER = (
    '"""Imports what is not its own."""\n\nimport trio\nimport wasmtime\nimport pie_trio\n'
)


def test_each_rule_is_broken_by_somebody_and_says_so() -> None:
    with copied_tree() as root:
        (root / "pie_trio/services/sinful.py").write_text(SINFUL_SERVICE, "utf-8")
        (root / "pie_trio/actors/sinful.py").write_text(SINFUL_ACTOR, "utf-8")
        (root / "gpu_worker/sinful.py").write_text(SINFUL_WORKER, "utf-8")
        (root / "docs/sinful.md").write_text(f"See {MACHINE_PATH}.\n", "utf-8")
        with (root / "pie_trio/cli/main.py").open("a") as file:
            file.write("import pie_trio.testing.simulation\n")
        config = root / "pie_trio/config.py"
        text = config.read_text("utf-8")
        config.write_text(
            text.replace("    mailbox: int", "    sins: int = 7\n    mailbox: int"), "utf-8"
        )
        run = run_tests(root, ["-rf", "--tb=no", "tests/test_house.py"])
    failed = set(re.findall(r"^FAILED \S+::(\w+)", run.stdout, re.MULTILINE))
    tree = ast.parse((ROOT / "tests/test_house.py").read_text("utf-8"))
    rules = {node.name for node in functions(tree) if node.name.startswith("test_")}
    assert rules - failed == set(), run.stdout
