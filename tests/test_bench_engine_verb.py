"""`pie-trio bench engine`: the front door of the benchmark, without measuring anything."""

from __future__ import annotations

from pathlib import Path

from pie_trio.cli.exit_codes import ExitCode
from tests.support.command import pie


def test_a_benchmark_of_a_model_that_is_not_there_names_it(tmp_path: Path) -> None:
    ended = pie(tmp_path, "bench", "engine", "--quick", "--model", "nothing")
    assert ended.returncode == ExitCode.MISSING, ended.stderr
    assert "there is no model 'nothing'" in ended.stderr
