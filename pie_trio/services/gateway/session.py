"""One client's conversation: each request answered once, each attached instance fed to it once.

It owns the requests being answered and the feeds of attached instances; all of them die with the
connection, the instances do not. What can be answered at once is, in the order in which it came;
what takes time runs beside the rest, so that a slow request delays no other. It waits for a client
only to put an answer into this client's own outbox.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Generic, TypeVar, assert_never

import trio

from pie_trio.config import Limits
from pie_trio.errors import BadRequest, PieError, TooMany
from pie_trio.services.client_messages import (
    AddProgram,
    AttachProcess,
    AuthIdentify,
    CheckProgram,
    ClientMessage,
    LaunchProcess,
    LaunchProcesses,
    ListProcesses,
    Ping,
    Query,
    Response,
    RunProcesses,
    SignalProcess,
    TerminateProcess,
    TransferFile,
)
from pie_trio.services.client_protocol import (
    AUTHENTICATED,
    NO_REQUEST,
    ProtocolError,
    decode_from_client,
    encode,
)
from pie_trio.services.gateway import requests
from pie_trio.services.gateway.engine_port import EngineLike, InstanceLike
from pie_trio.services.gateway.feed import Feed
from pie_trio.services.gateway.outbox import Outbox
from pie_trio.services.gateway.uploads import Uploads

I = TypeVar("I", bound=InstanceLike)  # noqa: E741


class Session(Generic[I]):
    """Between frames and the engine, for one client. Its tasks live in the connection's nursery."""

    def __init__(
        self, engine: EngineLike[I], limits: Limits, outbox: Outbox, nursery: trio.Nursery
    ) -> None:
        self._engine = engine
        self._limits = limits
        self._outbox = outbox
        self._nursery = nursery
        self._user: str | None = None
        self._uploads = Uploads(limits)
        self._file_turn = trio.Lock()
        self._feeds: set[Feed] = set()
        self._feed_ended = trio.Event()
        self._requests = 0
        self._request_bytes = 0

    async def hear(self, frame: bytes | str) -> None:
        """One frame from the client. Waits only while this client's outbox is full."""
        try:
            message = decode_from_client(frame)
        except ProtocolError as error:
            await self._answer(error.corr_id, False, str(error))
            return
        corr_id = getattr(message, "corr_id", NO_REQUEST)
        try:
            result = self._handle(message, len(frame))
        except PieError as error:
            await self._answer(corr_id, False, str(error))
            return
        if result is not None:
            await self._answer(corr_id, True, result)

    async def deliver_endings(self) -> None:
        """Until every attached instance has ended and its client knows it."""
        while self._feeds:
            await self._feed_ended.wait()

    def _handle(self, message: ClientMessage, size: int) -> str | None:
        """The answer, if it can be given at once."""
        if isinstance(message, AuthIdentify):
            return self._authenticate(message)
        user = self._known_user()
        match message:
            case Ping():
                return "Pong"
            case Query():
                return requests.query(self._engine, message)
            case CheckProgram():
                return requests.check_program(self._engine, message)
            case TerminateProcess():
                return self._terminate(user, message)
            case ListProcesses():
                return self._list(user)
            case SignalProcess() | TransferFile():
                self._deliver(user, message)
            case AddProgram():
                self._add_program(message)
            case AttachProcess():
                self._start(message.corr_id, size, partial(self._attach, user, message))
            case LaunchProcess():
                self._start(message.corr_id, size, partial(self._launch, user, message))
            case LaunchProcesses():
                self._start(message.corr_id, size, partial(self._launch_all, user, message))
            case RunProcesses():
                self._start(message.corr_id, size, partial(self._run_all, user, message))
            case _:
                assert_never(message)
        return None

    def _authenticate(self, message: AuthIdentify) -> str:
        length_max = self._limits.user_name_length
        if not 0 < len(message.username) <= length_max:
            raise BadRequest(f"a user name has 1 to {length_max} characters")
        if self._user not in (None, message.username):
            raise BadRequest(f"already authenticated as {self._user!r}")
        self._user = message.username
        return AUTHENTICATED

    def _known_user(self) -> str:
        if self._user is None:
            raise BadRequest("not authenticated; auth_identify comes first")
        return self._user

    def _terminate(self, user: str, message: TerminateProcess) -> str:
        instance = requests.own_instance(self._engine, user, message.process_id)
        if instance.is_finished:
            raise BadRequest("Process not found: it has already ended")
        instance.terminate()
        return "Process terminated"

    def _list(self, user: str) -> str:
        shown = [
            instance
            for instance in self._engine.instances()
            if instance.user == user and not (instance.is_finished and instance.outlet.is_attached)
        ]
        return requests.list_processes(shown, trio.current_time(), self._limits.reply_bytes)

    def _deliver(self, user: str, message: SignalProcess | TransferFile) -> None:
        instance = requests.own_instance(self._engine, user, message.process_id)
        if instance.is_finished:
            raise BadRequest("Process not found: it has already ended")
        if isinstance(message, SignalProcess):
            instance.inbox.deliver(message.message)
            return
        blob = self._uploads.add_file(message)
        if blob is not None:
            instance.inbox.deliver_blob(blob)

    def _add_program(self, message: AddProgram) -> None:
        artifact = self._uploads.add_program(message)
        if artifact is not None:
            work = partial(self._install, message, artifact)
            self._start(message.corr_id, len(artifact), work)

    def _start(self, corr_id: int, size: int, work: Callable[[], Awaitable[None]]) -> None:
        """A request that takes time; `work` answers it, or refuses by raising."""
        limits = self._limits
        if self._requests >= limits.requests_per_client:
            raise TooMany(f"{self._requests} requests of this client are already under way")
        if self._requests and self._request_bytes + size > limits.requests_bytes:
            raise TooMany(f"requests of {self._request_bytes} bytes are already under way")
        self._requests += 1
        self._request_bytes += size
        self._nursery.start_soon(self._serve, corr_id, size, work)

    async def _serve(self, corr_id: int, size: int, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except PieError as error:
            await self._answer(corr_id, False, str(error))
        finally:
            self._requests -= 1
            self._request_bytes -= size

    async def _install(self, message: AddProgram, artifact: bytes) -> None:
        await requests.install(self._engine, message, artifact)
        await self._answer(message.corr_id, True, "Program installed successfully")

    async def _attach(self, user: str, message: AttachProcess) -> None:
        instance = requests.own_instance(self._engine, user, message.process_id)
        await self._answer_and_feed(message.corr_id, "Process attached", [instance])

    async def _launch(self, user: str, message: LaunchProcess) -> None:
        instance = await requests.launch(self._engine, self._limits, user, message)
        attached = [instance] if message.capture_outputs else []
        await self._answer_and_feed(message.corr_id, instance.id, attached)

    async def _launch_all(self, user: str, message: LaunchProcesses) -> None:
        capture = message.capture_outputs
        instances = await requests.launch_all(
            self._engine, self._limits, user, message, capture=capture
        )
        ids = json.dumps([instance.id for instance in instances])
        await self._answer_and_feed(message.corr_id, ids, instances if capture else [])

    async def _run_all(self, user: str, message: RunProcesses) -> None:
        values = await requests.run_all(self._engine, self._limits, user, message)
        await self._answer(message.corr_id, True, values)

    async def _answer(self, corr_id: int, ok: bool, result: str) -> None:
        await self._outbox.put(self._response(corr_id, ok, result), is_reply=True)

    def _response(self, corr_id: int, ok: bool, result: str) -> bytes:
        if len(result.encode(errors="replace")) > self._limits.reply_bytes:
            ok, result = False, f"the answer is larger than {self._limits.reply_bytes} bytes"
        return encode(Response(corr_id=corr_id, ok=ok, result=result))

    async def _answer_and_feed(self, corr_id: int, result: str, instances: Sequence[I]) -> None:
        """The answer goes out before the events that need it to be understood."""
        feeds = [self._open_feed(instance) for instance in instances]
        self._feeds.update(feeds)  # from now on a stop waits for their endings

        def answered() -> None:
            for feed in feeds:
                feed.answered()

        try:
            response = self._response(corr_id, True, result)
            await self._outbox.put(response, answered, is_reply=True)
        except BaseException:
            self._feeds.difference_update(feeds)
            for feed in feeds:
                feed.reader.detach()
            raise
        for feed in feeds:
            self._nursery.start_soon(self._feed, feed)

    def _open_feed(self, instance: I) -> Feed:
        return Feed(
            process_id=instance.id,
            reader=instance.outlet.attach(),
            outbox=self._outbox,
            file_turn=self._file_turn,
            limits=self._limits,
            finished=partial(self._engine.forget, instance),
        )

    async def _feed(self, feed: Feed) -> None:
        try:
            await feed.run()
        finally:
            self._feeds.remove(feed)
            self._feed_ended.set()
            self._feed_ended = trio.Event()
