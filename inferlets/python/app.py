"""The interpreter component: runs an inferlet that is Python source, handed in as an argument.

The first argument is the source, the others are the program's own. All that a program may import
is imported here, so that it is part of the snapshot and costs nothing when the program starts.
"""

from __future__ import annotations

import linecache
from typing import Any

import inferlet
import modules  # noqa: F401
from running import describe, run_to_end
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


def warm_up() -> None:
    """Done while the snapshot is taken: what is imported late by these is part of it, too."""
    load_main(f"async def main(args):\n    return {inferlet.__name__!r}\n")
    parser = inferlet.ArgumentParser("warm-up", "never shown")
    parser.add_argument("--number", type=int, default=0)
    parser.parse_args(["--number", "1"])
    parser.format_help()
    try:
        load_main("def main(:")
    except SyntaxError as error:
        describe(error, FILE)


warm_up()
