"""The client itself: what a server offers, one typed call each.

It owns the connection and its two tasks for the time of one `async with`. Leaving the block closes
the connection within a bounded time and detaches from every instance; they run on. An error of the
caller's own comes out as itself, never wrapped.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio
import trio_websocket
from trio_websocket import WebSocketConnection

from pie_trio.client.errors import RequestRefused, ServerGone
from pie_trio.client.link import ClientLink, many_instances, one_instance
from pie_trio.client.remote import RemoteInstance
from pie_trio.config import Limits
from pie_trio.services.chunks import content_hash, cut
from pie_trio.services.client_messages import (
    AddProgram,
    AttachProcess,
    AuthIdentify,
    CheckProgram,
    LaunchProcess,
    LaunchProcesses,
    ListProcesses,
    Ping,
    Query,
    RunProcesses,
    TerminateProcess,
)
from pie_trio.services.program_store import read_program

DEFAULT_URL = "ws://127.0.0.1:8080"


@attrs.frozen
class RunningInstance:
    """One line of `Client.list`."""

    id: str
    user: str
    program: str
    input: str
    seconds: int
    is_finished: bool


@asynccontextmanager
async def open_client(
    url: str = DEFAULT_URL, *, user: str = "local", limits: Limits | None = None
) -> AsyncIterator[Client]:
    """Connects and authenticates; `ServerGone` or `RequestRefused` if that fails."""
    bounds = limits or Limits()

    async def connect(nursery: trio.Nursery) -> WebSocketConnection:
        return await trio_websocket.connect_websocket_url(
            nursery, url, message_queue_size=1, max_message_size=bounds.frame_bytes
        )

    async with _open(connect, url, user, bounds) as client:
        yield client


@asynccontextmanager
async def open_client_on(
    stream: trio.abc.Stream, *, user: str = "local", limits: Limits | None = None
) -> AsyncIterator[Client]:
    """The same over a stream that is already connected."""
    bounds = limits or Limits()

    async def connect(nursery: trio.Nursery) -> WebSocketConnection:
        return await trio_websocket.wrap_client_stream(
            nursery,
            stream,  # type: ignore[arg-type]  # any stream does; the annotation names two kinds
            "localhost",
            "/",
            message_queue_size=1,
            max_message_size=bounds.frame_bytes,
        )

    async with _open(connect, "the stream", user, bounds) as client:
        yield client


@asynccontextmanager
async def _open(
    connect: Callable[[trio.Nursery], Awaitable[WebSocketConnection]],
    where: str,
    user: str,
    limits: Limits,
) -> AsyncIterator[Client]:
    failure: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            socket: WebSocketConnection | None = None
            try:
                socket = await _connected(connect, nursery, where, limits)
                link = ClientLink(socket, limits, nursery)
                nursery.start_soon(link.read)
                nursery.start_soon(link.write)
                await link.ask(AuthIdentify(corr_id=link.next_number(), username=user))
                yield Client(link, limits)
            except Exception as error:
                # Carried out of the nursery by hand, so that the caller's error is not wrapped.
                failure = error
            finally:
                if socket is not None:
                    with trio.move_on_after(limits.close_seconds, shield=True):
                        await socket.aclose()
                nursery.cancel_scope.cancel()
    except* trio_websocket.HandshakeError as refusals:
        failure = ServerGone(f"cannot connect to {where}: {refusals.exceptions[0]!r}")
    if failure is not None:
        raise failure


async def _connected(
    connect: Callable[[trio.Nursery], Awaitable[WebSocketConnection]],
    nursery: trio.Nursery,
    where: str,
    limits: Limits,
) -> WebSocketConnection:
    try:
        with trio.fail_after(limits.handshake_seconds):
            return await connect(nursery)
    except trio.TooSlowError:
        raise ServerGone(f"{where} does not answer") from None
    except (OSError, ValueError, trio_websocket.HandshakeError) as error:
        raise ServerGone(f"cannot connect to {where}: {error!r}") from error


@attrs.frozen(eq=False)
class Client:
    """One authenticated connection. Calls may run beside each other, from any number of tasks."""

    _link: ClientLink
    _limits: Limits

    async def ping(self) -> None:
        await self._link.ask(Ping(corr_id=self._link.next_number()))

    async def query(self, subject: str, record: str = "") -> str:
        number = self._link.next_number()
        return await self._link.ask(Query(corr_id=number, subject=subject, record=record))

    async def model_status(self) -> dict[str, int | float | str | list[int]]:
        status: dict[str, int | float | str | list[int]] = json.loads(
            await self.query("model_status")
        )
        return status

    async def check(
        self,
        name: str,
        version: str,
        *,
        artifact_hash: str | None = None,
        manifest_hash: str | None = None,
    ) -> bool:
        """Is this program at the server, and with these contents?"""
        message = CheckProgram(
            corr_id=self._link.next_number(),
            name=name,
            version=version,
            wasm_hash=artifact_hash,
            manifest_hash=manifest_hash,
        )
        return await self._link.ask(message) == "true"

    async def install(self, manifest: str, artifact: bytes, *, overwrite: bool = False) -> None:
        """Cancelled: the program may be installed all the same."""
        number = self._link.next_number()
        chunks = cut(artifact, self._limits.upload_chunk_bytes)
        digest = content_hash(artifact)
        parts = [
            AddProgram(
                corr_id=number,
                program_hash=digest,
                manifest=manifest,
                force_overwrite=overwrite,
                total_chunks=len(chunks),
                chunk_index=index,
                chunk_data=chunk,
            )
            for index, chunk in enumerate(chunks)
        ]
        await self._link.ask_in_parts(parts)

    async def install_file(self, path: Path, *, overwrite: bool = False) -> str:
        """A `.py` or `.wasm` file or a folder with a manifest; what it is called from now on."""
        program = await trio.to_thread.run_sync(read_program, path, self._limits)
        artifact = await trio.Path(program.artifact).read_bytes()
        await self.install(program.manifest, artifact, overwrite=overwrite)
        return program.identity

    async def launch(
        self,
        program: str,
        *,
        arguments: Sequence[str] | None = None,
        input: object = None,  # noqa: A002
        capture: bool = True,
    ) -> RemoteInstance:
        """`arguments` as they stand, or `input`, whose keys become options.

        Cancelled: if it was launched all the same, it is terminated.
        """
        message = LaunchProcess(
            corr_id=self._link.next_number(),
            inferlet=program,
            input=_input_text(arguments, input),
            capture_outputs=capture,
        )
        [instance] = await self._link.ask_for_instances(message, program, one_instance)
        return instance

    async def launch_many(self, program: str, inputs: Sequence[object]) -> list[RemoteInstance]:
        """All of them or none."""
        message = LaunchProcesses(
            corr_id=self._link.next_number(),
            inferlet=program,
            inputs=tuple(json.dumps(each) for each in inputs),
            capture_outputs=True,
        )
        return await self._link.ask_for_instances(message, program, many_instances)

    async def run_many(self, program: str, inputs: Sequence[object]) -> list[str]:
        """What all of them return, in the order of the inputs; the first failure is raised."""
        message = RunProcesses(
            corr_id=self._link.next_number(),
            inferlet=program,
            inputs=tuple(json.dumps(each) for each in inputs),
        )
        values: list[str] = json.loads(await self._link.ask(message))
        return values

    async def attach(self, instance_id: str) -> RemoteInstance:
        """Its output goes on where the last reader left it."""
        number = self._link.next_number()
        message = AttachProcess(corr_id=number, process_id=instance_id)
        return await self._link.ask_to_attach(message)

    async def terminate(self, instance_id: str) -> None:
        number = self._link.next_number()
        await self._link.ask(TerminateProcess(corr_id=number, process_id=instance_id))

    async def list(self) -> list[RunningInstance]:
        """This user's instances, in the order of their launch."""
        rows = json.loads(await self._link.ask(ListProcesses(corr_id=self._link.next_number())))
        return [
            RunningInstance(
                id=row["id"],
                user=row["username"],
                program=row["program"],
                input=row["input"],
                seconds=row["elapsed_secs"],
                is_finished=row.get("status") == "finished",
            )
            for row in rows
        ]


def _input_text(arguments: Sequence[str] | None, value: object) -> str:
    if arguments is not None and value is not None:
        raise RequestRefused("give arguments or an input, not both")
    if arguments is not None:
        return json.dumps({"args": list(arguments)})
    return json.dumps({} if value is None else value)
