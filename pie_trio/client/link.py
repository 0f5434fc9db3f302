"""The client's end of one connection: numbers, pending answers, one reader and one writer.

It owns the table of requests that wait for an answer. When the connection dies, all of them and all
instances fail at once with `ServerGone`. A caller that is cancelled leaves the connection intact:
frames are written whole, by the writer; an answer that nobody waits for is dropped, and an instance
that nobody waits for any more is terminated.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import attrs
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from pie_trio.client.errors import RequestRefused, ServerGone
from pie_trio.client.remote import RemoteInstance
from pie_trio.config import Limits
from pie_trio.mailbox import Reply
from pie_trio.services.client_messages import (
    AttachProcess,
    Request,
    Response,
    ServerMessage,
    SignalProcess,
    TerminateProcess,
    TransferFile,
)
from pie_trio.services.client_protocol import decode_from_server, encode

Names = Callable[[str], Sequence[str]]  # from the text of an answer to the instances in it


def one_instance(result: str) -> Sequence[str]:
    return [result] if result else []


def many_instances(result: str) -> Sequence[str]:
    return [str(each) for each in json.loads(result)]


@attrs.define(eq=False)
class _Pending:
    """A request on its way; `names` says which instances its answer brings."""

    reply: Reply[str]
    program: str
    names: Names | None
    instances: list[RemoteInstance] = attrs.field(factory=list)
    is_launch: bool = False  # what nobody waits for any more is terminated
    is_abandoned: bool = False


class ClientLink:
    """Implements `remote.Link`."""

    def __init__(self, socket: WebSocketConnection, limits: Limits, nursery: trio.Nursery) -> None:
        self.instances: dict[str, RemoteInstance] = {}
        self._socket = socket
        self._limits = limits
        self._nursery = nursery
        self._pending: dict[int, _Pending] = {}
        self._number = 0
        self._gone: ServerGone | None = None
        self._frames, self._outgoing = trio.open_memory_channel[bytes](limits.mailbox)

    def next_number(self) -> int:
        self._number += 1
        return self._number

    async def tell(self, message: Request | SignalProcess | TransferFile) -> None:
        """Cancelled: the message was not sent."""
        if self._gone is not None:
            raise self._gone
        try:
            await self._frames.send(encode(message))
        except trio.BrokenResourceError:
            raise self._gone or ServerGone("the connection is closed") from None

    async def ask(self, message: Request) -> str:
        """The result of the answer, or `RequestRefused`. Cancelled: the answer is dropped."""
        return await self.ask_in_parts([message])

    async def ask_in_parts(self, parts: Sequence[Request]) -> str:
        """Several messages of one number, with one answer."""
        pending = _Pending(Reply(), "", None)
        return await self._ask(pending, parts)

    async def ask_for_instances(
        self, message: Request, program: str, names: Names
    ) -> list[RemoteInstance]:
        """Cancelled: what was launched all the same is terminated."""
        pending = _Pending(Reply(), program, names, is_launch=True)
        try:
            await self._ask(pending, [message])
        except BaseException:
            for instance in pending.instances:
                self._nursery.start_soon(self._terminate, instance.id)
            raise
        return pending.instances

    async def ask_to_attach(self, message: AttachProcess) -> RemoteInstance:
        """Cancelled: the instance stays attached to this connection, and runs on."""
        pending = _Pending(Reply(), "", lambda _result: [message.process_id])
        await self._ask(pending, [message])
        return pending.instances[0]

    async def _ask(self, pending: _Pending, parts: Sequence[Request]) -> str:
        number = parts[0].corr_id
        self._pending[number] = pending
        was_sent = False
        try:
            for part in parts:
                await self.tell(part)
                was_sent = True
                if pending.reply.is_filled:  # refused before the last part
                    break
            return await pending.reply.answer()
        finally:
            pending.is_abandoned = True
            if not was_sent:
                self._pending.pop(number, None)

    async def write(self) -> None:
        """Runs until the connection is closed."""
        try:
            async for frame in self._outgoing:
                await self._socket.send_message(frame)
        except ConnectionClosed as closed:
            self._fail(closed)
        except trio.ClosedResourceError:
            return  # the reader saw the end first

    async def read(self) -> None:
        """Runs until the connection is closed."""
        try:
            while True:
                self._arrive(decode_from_server(await self._socket.get_message()))
        except ConnectionClosed as closed:
            self._fail(closed)

    def _arrive(self, message: ServerMessage) -> None:
        if isinstance(message, Response):
            pending = self._pending.pop(message.corr_id, None)
            if pending is not None:
                self._settle(pending, message)
            return
        instance = self.instances.get(message.process_id)
        if instance is not None:
            instance.arrive(message)
            if instance.has_ended:
                del self.instances[message.process_id]

    def _settle(self, pending: _Pending, response: Response) -> None:
        if not response.ok:
            pending.reply.refuse(RequestRefused(response.result))
            return
        for each in pending.names(response.result) if pending.names is not None else ():
            # Before the next frame is read: the instance's events may be in it.
            instance = RemoteInstance(each, pending.program, self, self._limits)
            self.instances[each] = instance
            pending.instances.append(instance)
            if pending.is_abandoned and pending.is_launch:
                self._nursery.start_soon(self._terminate, each)
        pending.reply.fill(response.result)

    async def _terminate(self, process_id: str) -> None:
        await self.tell(TerminateProcess(corr_id=self.next_number(), process_id=process_id))

    def _fail(self, closed: ConnectionClosed) -> None:
        if self._gone is not None:
            return
        reason = closed.reason
        why = f": {reason.code} {reason.reason or reason.name}" if reason is not None else ""
        self._gone = ServerGone(f"the connection to the server is closed{why}")
        self._outgoing.close()
        for pending in self._pending.values():
            pending.reply.refuse(self._gone)
        self._pending.clear()
        for instance in self.instances.values():
            instance.fail(self._gone)
        self.instances.clear()
