"""The kit, the interpreter and the Python programs are typed, against the bindings of the WIT."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pie_trio.services.guest_build.c_component import WORLD
from pie_trio.services.guest_build.python_component import lay_out
from pie_trio.services.guest_build.toolchain import tool_command
from tests.support.kit import INFERLETS

PROGRAMS = sorted(path.parent for path in INFERLETS.glob("*/main.py"))


@pytest.mark.slow
def test_all_guest_python_is_typed(tmp_path: Path) -> None:
    """Laid out as for a build; `program.py` of the own app is one of the programs."""
    lay_out(tmp_path)
    app = tmp_path / "app"
    for program in PROGRAMS:
        shutil.copyfile(program / "main.py", app / f"program_{program.name.replace('-', '_')}.py")
    shutil.copyfile(PROGRAMS[0] / "main.py", app / "program.py")
    bindings = [*tool_command("componentize-py"), "-d", "wit", "-w", WORLD, "bindings", "bindings"]
    subprocess.run(bindings, cwd=tmp_path, check=True, capture_output=True)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-version", "3.12", "app"],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": f"app:{tmp_path / 'bindings'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [line for line in checked.stdout.splitlines() if line.startswith("app/")]
    assert complaints == [], "\n".join(complaints)
    assert checked.returncode in (0, 1), checked.stderr
