"""The table of everything is whole, up to date and true: rows are proven by taking bodies out."""

from __future__ import annotations

import ast
import os
import random
from pathlib import Path

import pytest

from tests.coverage_table.inventory import inventory
from tests.coverage_table.rows import PAGE_PATH, read_rows, render
from tests.coverage_table.taking_out import (
    StillPassesError,
    copied_tree,
    place_of,
    prove,
    take_out,
)
from tests.source_tree import ROOT, functions

SEED_VARIABLE = "PIE_TRIO_COVERAGE_SEED"
PROVEN_EACH_RUN = 10


def test_everything_has_a_row() -> None:
    items = inventory()
    rows = read_rows(items)
    missing = [item.key for item in items if item.key not in rows]
    assert not missing, "\n".join(["no row in tests/coverage_rows.toml:", *missing])


def test_every_row_is_about_something_that_exists() -> None:
    items = inventory()
    unknown = set(read_rows(items)) - {item.key for item in items}
    assert not unknown, "\n".join(sorted(unknown))


def test_every_row_names_a_test_that_exists() -> None:
    findings = []
    for row in read_rows(inventory()).values():
        file, _, name = row.test.partition("::")
        path = ROOT / file
        names = {node.name for node in functions(ast.parse(path.read_text("utf-8")))}
        if name.partition("[")[0] not in names:
            findings.append(f"{row.key}: {row.test}")
    assert not findings, "\n".join(findings)


def test_every_body_can_be_taken_out_and_what_is_left_can_be_read() -> None:
    with copied_tree() as root:
        for row in read_rows(inventory()).values():
            path = place_of(root, row.body)
            before = path.read_bytes()
            take_out(root, row.body)
            after = path.read_bytes()
            assert after != before, row
            if path.suffix == ".py":
                ast.parse(after)
            path.write_bytes(before)


def test_the_page_is_up_to_date() -> None:
    items = inventory()
    expected = render(items, read_rows(items))
    assert PAGE_PATH.read_text("utf-8") == expected, "run: python -m tests.coverage_table write"


def test_a_body_that_no_test_misses_is_found_out(tmp_path: Path) -> None:
    with pytest.raises(StillPassesError):
        prove("tests/test_log.py", "pie_trio.wasm.host.kvs:store_get")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_ten_rows_at_random_are_true() -> None:
    """Each of their tests fails without the body. The seed repeats the choice."""
    seed = int(os.environ.get(SEED_VARIABLE) or random.SystemRandom().randrange(2**32))
    rows = sorted(read_rows(inventory()).values(), key=lambda row: row.key)
    failures = []
    for row in random.Random(seed).sample(rows, PROVEN_EACH_RUN):
        try:
            prove(row.test, row.body)
        except StillPassesError as error:
            failures.append(f"{row.key}: {error}")
    assert not failures, "\n".join([f"{SEED_VARIABLE}={seed}", *failures])
