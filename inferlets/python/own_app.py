"""A program with an interpreter of its own: `program.py` beside this, part of the snapshot."""

from __future__ import annotations

import modules  # noqa: F401
import program
from running import run_to_end
from wit_world import exports
from wit_world.imports import runtime


class Run(exports.Run):
    """The world's export."""

    def run(self) -> None:
        run_to_end(lambda: program.main, runtime.get_arguments(), "program.py")
