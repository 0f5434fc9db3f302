"""The interpreter component: what its identity depends on, and a program with one of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pie_trio.services.guest_build import python_component
from pie_trio.services.guest_build.inferlet import build_inferlet
from pie_trio.services.guest_build.python_component import (
    ingredients,
    interpreter_identity,
    lay_out,
)
from tests.support.kit import INFERLETS
from tests.world import open_world


def test_everything_that_goes_in_is_part_of_the_identity(tmp_path: Path) -> None:
    lay_out(tmp_path)
    names = {path.relative_to(tmp_path).as_posix() for path in ingredients(tmp_path)}
    assert {"app/app.py", "app/inferlet/loop.py", "wit/deps/core/forward.wit"} <= names
    assert not any("__pycache__" in name for name in names)


def test_a_change_of_the_kit_is_another_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = interpreter_identity()

    def lay_out_changed(room: Path) -> None:
        lay_out(room)
        with (room / "app/inferlet/loop.py").open("a") as loop:
            loop.write("\n")

    monkeypatch.setattr(python_component, "lay_out", lay_out_changed)
    assert interpreter_identity() != before


@pytest.mark.slow
async def test_a_python_program_can_have_an_interpreter_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "program"
    shutil.copytree(INFERLETS / "messaging", folder)
    output = tmp_path / "messaging.wasm"
    build_inferlet(folder, output, lambda line: None)
    async with open_world(tmp_path / "home") as world:
        end = await world.run(output, "--count", "2")
    assert end.error is None
    assert end.value == '["message 1 of 2", "message 2 of 2"]'
