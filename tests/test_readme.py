"""The programs that the README shows work as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.source_tree import ROOT
from tests.support.command import pie


def _blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)


@pytest.mark.slow
def test_the_program_of_the_readme_answers_each_question(tmp_path: Path) -> None:
    program = tmp_path / "cities.py"
    program.write_text(_blocks()[0], "utf-8")
    ended = pie(tmp_path, "run", "--pretend", str(program), "--", "Paris", "Rome", "Berlin")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("\n") >= 3


def test_the_client_code_of_the_readme_names_what_exists() -> None:
    from pie_trio import client

    [names] = re.findall(r"from pie_trio.client import (.+)", _blocks()[1])
    assert hasattr(client, names)
