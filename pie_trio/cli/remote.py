"""Following one instance on a server: its output as it comes, our lines as its messages.

Ctrl-C aborts the instance and waits for its last words; Ctrl-D on a terminal lets it run on and
leaves. When the connection dies the instance runs on there, and the command says how to come back.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs
import trio

from pie_trio.cli.embedded import PROGRAM_SUFFIXES
from pie_trio.cli.exit_codes import ExitCode, Missing
from pie_trio.cli.output import Output
from pie_trio.cli.session import open_interrupts
from pie_trio.cli.standard_input import is_terminal, read_lines
from pie_trio.cli.transcript import Transcript
from pie_trio.client import Client, RemoteInstance, open_client

SHORT_ID = 8  # characters of an id that are shown to a person


async def run_on_server(
    server: str, user: str, program: str, arguments: Sequence[str], output: Output
) -> ExitCode:
    """Installs the program if it is a file, launches it, follows it."""
    async with open_client(server, user=user) as client:
        instance = await launch(client, program, arguments)
        return await follow(instance, output)


async def launch(client: Client, program: str, arguments: Sequence[str]) -> RemoteInstance:
    path = Path(program)
    if path.suffix in PROGRAM_SUFFIXES or "/" in program:
        if not await trio.Path(path).exists():
            raise Missing(f"{program} does not exist")
        program = await client.install_file(path, overwrite=True)
    return await client.launch(program, arguments=arguments)


async def follow(instance: RemoteInstance, output: Output) -> ExitCode:
    follower = _Follower(
        instance, output, Transcript(output, trio.current_time, trio.current_time())
    )
    return await follower.run()


@attrs.define(eq=False)
class _Follower:
    """One instance, one terminal."""

    instance: RemoteInstance
    output: Output
    transcript: Transcript
    ending: tuple[str, str] | None = None  # kind and text of the terminal event

    async def run(self) -> ExitCode:
        was_asked = False
        async with trio.open_nursery() as nursery:
            async with open_interrupts(
                lambda: nursery.start_soon(self.instance.terminate)
            ) as asked:
                nursery.start_soon(self._pass_on_lines, nursery.cancel_scope)
                await self._show_events()
                was_asked = asked.came
            nursery.cancel_scope.cancel()
        if self.ending is not None:
            return self._say_ending(*self.ending, was_asked)
        self.output.say(f"detached; come back with: pie-trio attach {self.instance.id[:SHORT_ID]}")
        return ExitCode.OK

    async def _show_events(self) -> None:
        async for event in self.instance:
            self.transcript.show(event.kind, event.value, event.data)
            if event.kind in ("return", "error"):
                self.ending = (event.kind, event.value)

    async def _pass_on_lines(self, detach: trio.CancelScope) -> None:
        async for line in read_lines():
            await self.instance.send(line)
        if is_terminal():
            detach.cancel()

    def _say_ending(self, kind: str, text: str, was_asked: bool) -> ExitCode:
        if kind == "return":
            self.output.say(self.transcript.closing_line("returned"))
            return ExitCode.OK
        self.output.say(self.transcript.closing_line("ended with an error"))
        if was_asked:
            return ExitCode.INTERRUPTED
        self.output.complain(f"{self.instance.program}: {text}")
        return ExitCode.INSTANCE_FAILED
