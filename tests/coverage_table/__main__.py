"""`python -m tests.coverage_table write | check KEY... | search TESTS -- KEY...`

`write` generates the page, `check` proves rows, `search` finds and keeps a test for each item
that has none. It changes `docs/coverage.md` and `tests/coverage_rows.toml` and nothing else.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable

from tests.coverage_table.inventory import Item, inventory
from tests.coverage_table.rows import PAGE_PATH, ROWS_PATH, read_rows, render, write_rows
from tests.coverage_table.search import failing_tests, nearest
from tests.coverage_table.taking_out import StillPassesError, prove


def write(_arguments: list[str]) -> int:
    items = inventory()
    PAGE_PATH.write_text(render(items, read_rows(items)), "utf-8")
    return 0


def check(keys: list[str]) -> int:
    """All rows when no key is given."""
    rows = read_rows(inventory())
    failures = 0
    for key in keys or list(rows):
        try:
            prove(rows[key].test, rows[key].body)
            sys.stdout.write(f"ok   {key}\n")
        except StillPassesError as error:
            failures += 1
            sys.stdout.write(f"FAIL {key}: {error}\n")
        sys.stdout.flush()
    return min(failures, 1)


def search(arguments: list[str]) -> int:
    """For items without a row whose key contains one of the words after `--`."""
    split = arguments.index("--")
    candidates, words = arguments[:split], arguments[split + 1 :]
    entries = tomllib.loads(ROWS_PATH.read_text("utf-8"))
    wanted = [item for item in inventory() if item.key not in entries and _named(item, words)]
    for item in wanted:
        if item.body is None:
            sys.stdout.write(f"body? {item.key}\n")
            continue
        test = nearest(item.name, failing_tests(item.body, candidates))
        sys.stdout.write(f"{'found' if test else 'NONE '} {item.key} {test or ''}\n")
        sys.stdout.flush()
        if test:
            fresh = tomllib.loads(ROWS_PATH.read_text("utf-8"))
            write_rows({**fresh, item.key: {"test": test}})
    return 0


def _named(item: Item, words: list[str]) -> bool:
    return any(word in item.key for word in words)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "write": write,
    "check": check,
    "search": search,
}

if __name__ == "__main__":
    sys.exit(COMMANDS[sys.argv[1]](sys.argv[2:]))
