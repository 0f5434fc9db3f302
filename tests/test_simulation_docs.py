"""The worked examples of docs/simulation.md work as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.source_tree import ROOT

PAGE = (ROOT / "docs" / "simulation.md").read_text("utf-8")
EXAMPLES = dict(re.findall(r"```python\n# (test_\w+\.py)\n(.*?)```", PAGE, re.DOTALL))


def run_pytest(folder: Path, name: str, text: str) -> subprocess.CompletedProcess[str]:
    (folder / name).write_text(text, "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--strict-markers"]
    return subprocess.run(
        [*command, name], cwd=folder, capture_output=True, text=True, timeout=240, check=False
    )


def test_there_are_three_examples() -> None:
    assert sorted(EXAMPLES) == ["test_poem.py", "test_seats.py", "test_sharing.py"]


@pytest.mark.parametrize("name", ["test_seats.py", "test_sharing.py"])
def test_the_example_passes(name: str, tmp_path: Path) -> None:
    ended = run_pytest(tmp_path, name, EXAMPLES[name])
    assert ended.returncode == 0, ended.stdout


@pytest.mark.slow
def test_the_example_with_an_own_inferlet_passes(tmp_path: Path) -> None:
    ended = run_pytest(tmp_path, "test_poem.py", EXAMPLES["test_poem.py"])
    assert ended.returncode == 0, ended.stdout


def test_every_verb_and_kind_of_fault_that_the_page_names_exists() -> None:
    from pie_trio.cli.sim_verbs import app
    from pie_trio.testing.faults import KINDS

    verbs = {command.name for command in app.registered_commands}
    assert set(re.findall(r"^pie-trio sim (\S+)", PAGE, re.MULTILINE)) == verbs
    rows = re.findall(r"^\| (`[a-z`, ]+`) \|", PAGE, re.MULTILINE)
    assert {kind for row in rows for kind in re.findall(r"`(\w+)`", row)} == set(KINDS)
