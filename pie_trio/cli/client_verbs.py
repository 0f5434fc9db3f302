"""`pie-trio submit|list|attach|abort|ping`: what a user does with a server that runs already.

Each verb is one connection. An id may be cut to any prefix that only one of the user's instances
has. It owns nothing at the server: when the command dies, instances run on there.
"""

from __future__ import annotations

from typing import Annotated

import trio
import typer

from pie_trio.cli.exit_codes import ExitCode, Missing, Usage
from pie_trio.cli.options import DEFAULT_SERVER, ServerOption, UserOption
from pie_trio.cli.output import Output
from pie_trio.cli.remote import SHORT_ID, follow, launch
from pie_trio.cli.session import leave_with
from pie_trio.client import Client, open_client

IdArgument = Annotated[str, typer.Argument(help="An id, or its beginning if that is unique.")]


def submit(
    program: Annotated[str, typer.Argument(help="A program's name, or a .py or .wasm file.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="What the program gets, after `--`.")
    ] = None,
    server: ServerOption = DEFAULT_SERVER,
    user: UserOption = "local",
    detached: Annotated[
        bool, typer.Option("--detached", help="Say the id and leave; it runs on.")
    ] = False,
) -> None:
    """Launch a program on a server and follow it. Ctrl-C aborts it, Ctrl-D leaves it running.

    Example: pie-trio submit text-completion -- --prompt "Hello"
    """
    output = Output.of_process()

    async def work() -> ExitCode:
        async with open_client(server, user=user) as client:
            instance = await launch(client, program, arguments or ())
            if detached:
                output.line(instance.id)
                return ExitCode.OK
            output.say(f"launched {instance.id[:SHORT_ID]}")
            return await follow(instance, output)

    leave_with(work)


def list_instances(server: ServerOption = DEFAULT_SERVER, user: UserOption = "local") -> None:
    """List your instances on a server: id, program, how long it has been running.

    Example: pie-trio list --server ws://127.0.0.1:8080
    """
    output = Output.of_process()

    async def work() -> ExitCode:
        async with open_client(server, user=user) as client:
            for instance in await client.list():
                state = "finished" if instance.is_finished else f"{instance.seconds} s"
                output.line(f"{instance.id}\t{instance.program}\t{state}")
        return ExitCode.OK

    leave_with(work)


def attach(
    instance: IdArgument, server: ServerOption = DEFAULT_SERVER, user: UserOption = "local"
) -> None:
    """Follow an instance that runs already. Ctrl-C aborts it, Ctrl-D leaves it running.

    Example: pie-trio attach 3f2a
    """
    output = Output.of_process()

    async def work() -> ExitCode:
        async with open_client(server, user=user) as client:
            identity = await _complete(client, instance)
            return await follow(await client.attach(identity), output)

    leave_with(work)


def abort(
    instance: IdArgument, server: ServerOption = DEFAULT_SERVER, user: UserOption = "local"
) -> None:
    """End an instance.

    Example: pie-trio abort 3f2a
    """
    output = Output.of_process()

    async def work() -> ExitCode:
        async with open_client(server, user=user) as client:
            identity = await _complete(client, instance)
            await client.terminate(identity)
            output.say(f"aborted {identity}")
        return ExitCode.OK

    leave_with(work)


def ping(server: ServerOption = DEFAULT_SERVER, user: UserOption = "local") -> None:
    """Ask a server whether it is there, and how long the answer took.

    Example: pie-trio ping
    """
    output = Output.of_process()

    async def work() -> ExitCode:
        async with open_client(server, user=user) as client:
            started = trio.current_time()
            await client.ping()
            output.line(f"{server} answered in {(trio.current_time() - started) * 1000:.1f} ms")
        return ExitCode.OK

    leave_with(work)


async def _complete(client: Client, prefix: str) -> str:
    """The one id that begins so. Raises `Missing` or `Usage`."""
    found = [instance.id for instance in await client.list() if instance.id.startswith(prefix)]
    if not found:
        raise Missing(f"no instance of yours begins with {prefix!r}; see `pie-trio list`")
    if len(found) > 1:
        raise Usage(f"{prefix!r} is not unique: {', '.join(sorted(found))}")
    return found[0]
