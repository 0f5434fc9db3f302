"""Finds a test for a row by trying: take the body out, run the candidates, see who fails.

A tool for whoever adds an item; what it finds is proven by construction. It only reads the tree.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher

from tests.coverage_table.taking_out import copied_tree, run_tests, take_out

FAILED = re.compile(r"^FAILED (\S+)", re.MULTILINE)


def failing_tests(body: str, candidates: list[str]) -> list[str]:
    """Tests among the candidates that miss the body; they all pass with it, by assumption."""
    with copied_tree() as root:
        take_out(root, body)
        run = run_tests(root, ["-rf", "--tb=no", *candidates])
    return [test for test in FAILED.findall(run.stdout) if "[" not in test or "]" in test]


def nearest(name: str, tests: list[str]) -> str | None:
    """The test whose name says most about the item."""
    words = re.sub(r"\W+", "_", name)

    def likeness(test: str) -> float:
        return SequenceMatcher(None, words, test.rpartition("::")[2]).ratio()

    return max(tests, key=likeness, default=None)
