"""`pie-trio run --watch`: a program that runs again whenever its files change, in one engine.

The instance that runs when a file changes is ended and followed to its end, then the next one is
started. What a program does wrong is shown, and watching goes on; only a signal or a bug ends it.
Files are looked at, never opened, until something has changed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import trio

from pie_trio.cli.exit_codes import ExitCode
from pie_trio.cli.fresh_build import artifact_of, build_if_older
from pie_trio.cli.output import Output
from pie_trio.errors import BadProgram, PieError

if TYPE_CHECKING:
    from pie_trio.actors.instance import Instance

LOOK_SECONDS: Final = 0.1
SETTLE_SECONDS: Final = 0.05  # an editor writes a file in several steps
Stamp = dict[Path, tuple[int, int]]


@attrs.define(eq=False)
class Watched:
    """The files of one program, and how they looked when they were last looked at."""

    path: Path
    stamp: Stamp = attrs.field(factory=dict, init=False)

    def look(self) -> bool:
        """Whether anything has changed since the last look."""
        before, self.stamp = self.stamp, {path: _facts(path) for path in self._files()}
        return before != self.stamp

    async def wait_changed(self) -> None:
        while not self.look():  # noqa: ASYNC110 (nobody tells of files)
            await trio.sleep(LOOK_SECONDS)
        await trio.sleep(SETTLE_SECONDS)
        self.look()

    def _files(self) -> list[Path]:
        if not self.path.is_dir():
            return [self.path]
        try:
            built = artifact_of(self.path)
        except BadProgram:
            built = None
        return [
            path
            for path in sorted(self.path.iterdir())
            if path.is_file() and not path.name.startswith(".") and path != built
        ]


def _facts(path: Path) -> tuple[int, int]:
    try:
        facts = path.stat()
    except OSError:  # an editor is about to put another in its place
        return (0, 0)
    return (facts.st_mtime_ns, facts.st_size)


async def run_again_and_again(
    path: Path,
    launch: Callable[[], Awaitable[Instance]],
    follow: Callable[[Instance], Awaitable[ExitCode]],
    output: Output,
) -> None:
    """Until it is cancelled."""
    watched = Watched(path)
    watched.look()
    while True:
        await _run_until_changed(watched, launch, follow, output)
        output.say(f"{path} has changed: running it again")


async def _run_until_changed(
    watched: Watched,
    launch: Callable[[], Awaitable[Instance]],
    follow: Callable[[Instance], Awaitable[ExitCode]],
    output: Output,
) -> None:
    async with trio.open_nursery() as nursery:
        running: list[Instance] = []

        async def run() -> None:
            try:
                if watched.path.is_dir():
                    await trio.to_thread.run_sync(build_if_older, watched.path, output.say)
                running.append(await launch())
            except PieError as error:
                output.complain(str(error))
            else:
                await follow(running[0])
            output.say(f"watching {watched.path}; Ctrl-C ends")

        nursery.start_soon(run)
        await watched.wait_changed()
        if running:
            running[0].terminate("its file has changed")
        else:
            nursery.cancel_scope.cancel()
