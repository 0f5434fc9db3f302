"""The interpreter component: runs an inferlet that is Python source, handed in as an argument.

The first argument is the source, the others are the program's own. All that a program may import
is imported here, so that it is part of the snapshot and costs nothing when the program starts.
"""

from __future__ import annotations

import linecache
from typing import Any

import inferlet
import modules  # noqa: F401
from running import run_to_end
from wit_world import exports
from wit_world.imports import runtime

FILE = "program.py"


class Run(exports.Run):
    """The world's export."""

    def run(self) -> None:
        source, *arguments = runtime.get_arguments()
        run_to_end(lambda: load_main(source), arguments, FILE)


def load_main(source: str) -> Any:
    """Executes the source; its `main`."""
    linecache.cache[FILE] = (len(source), None, source.splitlines(keepends=True), FILE)
    namespace: dict[str, Any] = {"__name__": "__program__", "__file__": FILE}
    exec(compile(source, FILE, "exec"), namespace)
    if "main" not in namespace:
        raise SystemExit(f"{FILE} defines no main")
    return namespace["main"]


# One program is loaded while the snapshot is taken, so that the compiler's caches are warm.
load_main(f"async def main(args):\n    return {inferlet.__name__!r}\n")
