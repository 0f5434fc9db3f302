"""`pie-trio run`: one program, its output as it comes, then how it went.

Without a server the whole engine lives inside this command and ends with it. With one, the program
is installed there if it is a file, and Ctrl-C aborts the instance there. The command never ends
before the instance has, unless it is interrupted twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import attrs
import trio
import typer

from pie_trio.cli.embedded import find_program, open_ports
from pie_trio.cli.exit_codes import ExitCode, Missing, Usage
from pie_trio.cli.options import (
    ConfigOption,
    FetchOption,
    Flags,
    NumericOption,
    PretendOption,
    SeedOption,
    UserOption,
    resolve,
)
from pie_trio.cli.output import Output
from pie_trio.cli.progress import open_steps
from pie_trio.cli.recorder import open_recorder
from pie_trio.cli.remote import run_on_server
from pie_trio.cli.session import Interrupts, leave_with, open_interrupts
from pie_trio.cli.standard_input import read_lines
from pie_trio.cli.transcript import Transcript
from pie_trio.cli.watch import run_again_and_again
from pie_trio.config import Settings
from pie_trio.engine import Engine, open_engine
from pie_trio.home import Home
from pie_trio.program_loader import LoaderMaker, ProgramLoader
from pie_trio.recording import recording_loader
from pie_trio.services.launch_input import ARGUMENTS_KEY, launch_arguments

if TYPE_CHECKING:
    from pie_trio.actors.instance import Instance

LogOption = Annotated[
    str | None, typer.Option("--log", help="Log on stderr: console, json or off (the default).")
]
WatchOption = Annotated[
    bool, typer.Option("--watch", help="Run it again whenever its files change, until Ctrl-C.")
]
RecordOption = Annotated[
    Path | None, typer.Option("--record", help="Keep the run's host calls here, for `replay`.")
]


def run(
    program: Annotated[str, typer.Argument(help="A program's name, or a .py or .wasm file.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="What the program gets, after `--`.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Serve this model.")] = None,
    server: Annotated[
        str | None, typer.Option("--server", help="Run there instead: ws://host:port.")
    ] = None,
    pretend: PretendOption = False,
    numeric: NumericOption = None,
    seed: SeedOption = None,
    allow_fetch: FetchOption = None,
    log: LogOption = None,
    record: RecordOption = None,
    watch: WatchOption = False,
    user: UserOption = "local",
    config: ConfigOption = None,
) -> None:
    """Run a program: its output on stdout, how it went on stderr.

    Lines of stdin reach the program as messages. Ctrl-C ends it.

    Example: pie-trio run text-completion -- --prompt "What is the capital of France?"
    """
    output = Output.of_process()
    if watch and (server is not None or record is not None):
        raise Usage("--watch is for an engine of our own, and records nothing")
    if watch and not Path(program).exists():
        raise Missing(f"--watch: {program} is no file or folder")
    models = [model] if model else ()
    flags = Flags(
        models=models,
        pretend=pretend,
        seed=seed,
        log=log,
        numeric=numeric,
        fetch=allow_fetch or (),
    )
    if server is not None:
        if flags != Flags() or config is not None or record is not None:
            raise Usage(
                "--model, --pretend, --numeric, --seed, --allow-fetch, --log, --record and "
                "--config are for an engine of our own; the server has its own (a program may take "
                "--model after --)"
            )
        leave_with(lambda: run_on_server(server, user, program, arguments or (), output))
    settings = resolve(config, attrs.evolve(flags, log=log or "off")).settings
    job = Job(program, tuple(arguments or ()), user, settings, output, record)
    leave_with(lambda: watch_here(job) if watch else run_here(job))


@attrs.frozen(eq=False)
class Job:
    """One program to run in an engine of our own."""

    program: str
    arguments: Sequence[str]
    user: str
    settings: Settings
    output: Output
    record: Path | None = None  # where its host calls are kept


async def run_here(job: Job) -> ExitCode:
    with trio.CancelScope() as starting:
        async with open_interrupts(starting.cancel) as interrupts, AsyncExitStack() as stack:
            engine = await _open(job, stack)
            instance = await _launch(job, engine)
            interrupts.on_first = instance.terminate
            return await _follow(job, engine, instance, interrupts)
    return ExitCode.INTERRUPTED


async def watch_here(job: Job) -> ExitCode:
    """One engine; the first signal ends the instance, then the engine, as a stop does."""
    with trio.CancelScope() as watching:
        async with open_interrupts(watching.cancel) as interrupts, AsyncExitStack() as stack:
            engine = await _open(job, stack)
            await run_again_and_again(
                Path(job.program),
                lambda: _launch(job, engine),
                lambda instance: _follow(job, engine, instance, interrupts),
                job.output,
            )
    return ExitCode.INTERRUPTED


async def _open(job: Job, stack: AsyncExitStack) -> Engine:
    ports = open_ports(job.settings, job.output, "info")
    loader: LoaderMaker = ProgramLoader
    if job.record is not None:
        limits = job.settings.limits
        recorder = open_recorder(job.record, job.program, ports, limits, job.output)
        ports = stack.enter_context(recorder)
        loader = recording_loader(ports)
    home = Home.default()
    with open_steps(job.output) as steps:
        opening = open_engine(job.settings, ports, home, progress=steps.say, loader=loader)
        return await stack.enter_async_context(opening)


async def _launch(job: Job, engine: Engine) -> Instance:
    with open_steps(job.output) as steps:
        record = find_program(engine.programs, job.program, steps.say)
        text = json.dumps({ARGUMENTS_KEY: list(job.arguments)})  # as a client would write it
        arguments = launch_arguments(text, job.settings.limits, call=record.call)
        return await engine.launch(record, arguments, user=job.user, input_text=text)


async def _follow(job: Job, engine: Engine, instance: Instance, interrupts: Interrupts) -> ExitCode:
    transcript = Transcript(job.output, trio.current_time, instance.started_at)
    reader = instance.outlet.attach()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_pass_on_lines, instance)
        while events := await reader.next_events():
            for event in events:
                transcript.show(event.kind, event.value, event.data)
        nursery.cancel_scope.cancel()
    ended = await instance.ended.answer()
    outcome = "returned" if ended.error is None else f"ended with {ended.error_kind}"
    job.output.say(transcript.closing_line(outcome, _token_counter(engine)))
    if ended.error is None:
        return ExitCode.OK
    if interrupts.came:
        return ExitCode.INTERRUPTED
    job.output.complain(f"{job.program}: {ended.error}")
    return ExitCode.INSTANCE_FAILED


async def _pass_on_lines(instance: Instance) -> None:
    async for line in read_lines():
        instance.inbox.deliver(line)


def _token_counter(engine: Engine) -> Callable[[str], int]:
    """Counts as the first served model would; `run` serves one."""
    tokenizer = next(iter(engine.models.values())).tokenizer
    return lambda text: len(tokenizer.encode(text))
