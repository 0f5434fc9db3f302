"""`pie-trio serve`: an engine with its models, and the front door, until a signal comes.

The first Ctrl-C or SIGTERM closes the door, ends the instances and drains the workers, all within
the grace time; the second one ends the process at once. It says one line on stdout, when clients
can connect, and nothing else there.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Annotated

import attrs
import trio
import typer

from pie_trio.cli.embedded import open_ports
from pie_trio.cli.exit_codes import ExitCode, Unreachable
from pie_trio.cli.options import (
    ConfigOption,
    FetchOption,
    Flags,
    NumericOption,
    PretendOption,
    SeedOption,
    resolve,
)
from pie_trio.cli.output import Output
from pie_trio.cli.progress import open_steps
from pie_trio.cli.session import leave_with, open_interrupts
from pie_trio.config import Settings
from pie_trio.engine import Engine, open_engine
from pie_trio.events import ServerListening, ServerStopping
from pie_trio.home import Home
from pie_trio.ports import Ports
from pie_trio.services.gateway import open_listeners, serve_gateway

HostOption = Annotated[
    str | None, typer.Option("--host", help="Address to listen on; only loopback is served.")
]


def serve(
    host: HostOption = None,
    port: Annotated[
        int | None, typer.Option("--port", help="Port; 0 takes one that is free.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", help="Serve this model; may be repeated.")
    ] = None,
    pretend: PretendOption = False,
    numeric: NumericOption = None,
    seed: SeedOption = None,
    allow_fetch: FetchOption = None,
    log: Annotated[
        str | None, typer.Option("--log", help="Log on stderr: console, json or off.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log details too.")] = False,
    config: ConfigOption = None,
) -> None:
    """Serve programs to clients over WebSocket.

    Ends in order on Ctrl-C or SIGTERM, at once on the second one.

    Example: pie-trio serve --port 8080 --model smollm2-135m
    """
    flags = Flags(host, port, model or (), pretend, seed, log, numeric, allow_fetch or ())
    settings = resolve(config, flags).settings
    leave_with(lambda: _serve(settings, Output.of_process(), "debug" if verbose else "info"))


async def _serve(settings: Settings, output: Output, least: str) -> ExitCode:
    ports = open_ports(settings, output, least)
    stop = _Stop()
    with stop.opening:
        async with open_interrupts(stop.cancel), AsyncExitStack() as stack:
            await _serve_until_stopped(settings, ports, output, stack, stop)
    return ExitCode.OK


@attrs.define(eq=False)
class _Stop:
    """What the first signal cancels: the start; or, once clients are served, only their door.

    The engine then ends in its own order: instances, which their clients see, then the workers.
    """

    opening: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    door: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    is_open: bool = False

    def cancel(self) -> None:
        (self.door if self.is_open else self.opening).cancel()


async def _serve_until_stopped(
    settings: Settings, ports: Ports, output: Output, stack: AsyncExitStack, stop: _Stop
) -> None:
    listeners = await _listen(settings)
    with open_steps(output) as steps:
        opening = open_engine(settings, ports, Home.default(), progress=steps.say)
        engine = await stack.enter_async_context(opening)
    address = _address(listeners[0])
    output.line(f"pie-trio serves {', '.join(engine.models)} on {address}")
    ports.emit(ServerListening(trio.current_time(), address))
    stop.is_open = True
    with stop.door:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end_instances_at_stop, engine, ports)
            await serve_gateway(engine, listeners, settings, ports)


async def _end_instances_at_stop(engine: Engine, ports: Ports) -> None:
    """Ends them while the gateway can still tell their clients."""
    try:
        await trio.sleep_forever()
    finally:
        ports.emit(_stopping(engine))
        for instance in engine.instances():
            instance.terminate("the server is stopping")


async def _listen(settings: Settings) -> list[trio.SocketListener]:
    try:
        return await open_listeners(settings.host, settings.port, settings.limits)
    except OSError as error:
        place = f"{settings.host} port {settings.port}"
        raise Unreachable(f"cannot listen on {place}: {error.strerror or error}") from error


def _address(listener: trio.SocketListener) -> str:
    host, port = listener.socket.getsockname()[:2]
    return f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}"


def _stopping(engine: Engine) -> ServerStopping:
    running = sum(not instance.is_finished for instance in engine.instances())
    return ServerStopping(trio.current_time(), "a signal came", running)
