"""One command queue of one instance: commands take effect in the order of the calls.

Passes are handed on at once, so that several of one queue may share a batch; every other command
waits until all passes before it have settled. Behind a sequence that the model decodes by itself
everything waits until that has ended. The loop runs in its instance's nursery while there is
something to do, and dies with the instance; a command still in the mailbox then is never
executed, and its pages go back with the lease.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

import trio

from pie_trio.config import Limits
from pie_trio.errors import PieError
from pie_trio.mailbox import Reply
from pie_trio.messages import ForwardPass, PassResult, QueueCommand, RunCommand, SubmitPass
from pie_trio.ports import Ports


class PassSink(Protocol):
    """Where passes go from here: the model's inbox."""

    def submit_nowait(self, forward: ForwardPass) -> None: ...
    async def submit(self, forward: ForwardPass) -> None: ...


class CommandQueue:
    """The mailbox of a queue and its loop."""

    def __init__(self, sink: PassSink, nursery: trio.Nursery, limits: Limits, ports: Ports) -> None:
        self._sink = sink
        self._nursery = nursery
        self._ports = ports
        self._send, self._receive = trio.open_memory_channel[QueueCommand](limits.mailbox)
        self._in_mailbox = 0
        self._unsettled: deque[Reply[PassResult]] = deque()
        self._has_failed = False
        self._decoding: Reply[PassResult] | None = None  # of the last sequence

    async def submit(self, forward: ForwardPass) -> None:
        """Hands a pass on, without a hop when nothing is before it."""
        if not self._in_mailbox and not self._is_decoding:
            try:
                self._sink.submit_nowait(forward)
            except trio.WouldBlock:
                pass
            else:
                self._note(forward)
                return
        await self._post(SubmitPass(forward))

    async def run_in_turn(self, command: RunCommand) -> None:
        await self._post(command)

    async def _post(self, command: QueueCommand) -> None:
        if not self._in_mailbox:
            self._nursery.start_soon(self._run)
        self._in_mailbox += 1
        await self._send.send(command)

    async def _run(self) -> None:
        """The loop; ends when everything has been done."""
        while self._in_mailbox:
            command = await self._receive.receive()
            self._ports.hit("command_queue.command")
            match command:
                case SubmitPass(forward):
                    if self._decoding is not None:
                        await self._decoding.wait()
                    self._note(forward)
                    await self._sink.submit(forward)
                case RunCommand():
                    await self._run_command(command)
            self._in_mailbox -= 1

    async def _run_command(self, command: RunCommand) -> None:
        for reply in list(self._unsettled):
            await reply.wait()
        self._forget_settled()
        succeeded = not self._has_failed
        if command.is_barrier:
            self._has_failed = False
        try:
            command.reply.fill(command.deed(succeeded))
        except PieError as error:
            command.reply.refuse(error)

    @property
    def _is_decoding(self) -> bool:
        return self._decoding is not None and not self._decoding.is_filled

    def _note(self, forward: ForwardPass) -> None:
        self._forget_settled()
        self._unsettled.append(forward.reply)
        self._decoding = forward.reply if forward.decode is not None else None

    def _forget_settled(self) -> None:
        while self._unsettled and self._unsettled[0].is_filled:
            try:
                self._unsettled.popleft().take()
            except PieError:
                self._has_failed = True
