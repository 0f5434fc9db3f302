"""`pie:ext/child`: programs that a guest starts, and what it hears of them.

A process is the guest's hold on a child: dropping it, or dying, ends the child. What the host keeps
between the two is charged to the guest for as long as it holds on. An outcome is shown when the
child's pages are back.
It must never wait in a function but for the start, nor show an end that has not come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import attrs

from pie_trio.errors import GuestFault, PieError
from pie_trio.handles import ChildHandle
from pie_trio.wasm.codec import Case, Err
from pie_trio.wasm.host.ext_errors import error_value, with_errors
from pie_trio.wasm.host.faults import bounded_text, fault
from pie_trio.wasm.host.state import HeldMemory, InstanceHost

if TYPE_CHECKING:
    from pie_trio.wasm.linker import HostFunction

START = "child.start"


@attrs.define(eq=False)
class Process:
    """The guest's hold on a child."""

    child: ChildHandle
    _held: HeldMemory
    _charge: int

    def close(self) -> None:
        self.child.close()
        self._held.refund(self._charge)
        self._charge = 0


@attrs.frozen(eq=False)
class ProcessPollable:
    """Ready while a message is unread, and for ever after the end."""

    child: ChildHandle
    from_client: bool = attrs.field(default=True, init=False)

    def ready(self) -> bool:
        return self.child.is_readable

    async def wait(self) -> None:
        while not self.ready():
            await self.child.wait_readable()


@with_errors
async def start(
    host: InstanceHost, program: str, arguments: Sequence[str], deadline_ms: int | None
) -> Process:
    """Cancelled: nothing was started."""
    limits = host.limits
    bounded_text(START, "program", program, limits.name_bytes, "name_bytes")
    size = sum(len(argument.encode()) for argument in arguments)
    if size > limits.arguments_bytes:
        raise fault(START, "the size of arguments", size, f"{limits.arguments_bytes} bytes")
    charge = 2 * limits.child_mailbox_bytes  # unread messages, to and fro
    seconds = None if deadline_ms is None else deadline_ms / 1000
    with host.held.charged(START, charge):
        child = await host.children.start(program, arguments, seconds)
    return Process(child, host.held, charge)


def pollable(_host: InstanceHost, process: Process) -> ProcessPollable:
    return ProcessPollable(process.child)


def send(host: InstanceHost, process: Process, message: str) -> Err | None:
    """Given to the child's `receive`; a full inbox refuses it."""
    bounded_text("process.send", "message", message, host.limits.message_bytes, "message_bytes")
    try:
        process.child.send(message)
    except PieError as error:
        return Err(error_value(error))
    return None


def receive(_host: InstanceHost, process: Process) -> str | None:
    """The oldest message that was not received; none if there is none yet, or no more."""
    return process.child.receive()


def outcome(_host: InstanceHost, process: Process) -> str | Err | None:
    """None while it runs; then what it returned, or why it did not."""
    child = process.child
    if not child.ended.is_filled:
        return None
    failure = child.failure
    if failure is None:
        return child.ended.take().value
    if isinstance(failure, GuestFault):
        return Err(Case("failed", str(failure)))
    return Err(error_value(failure))


def cancel(host: InstanceHost, process: Process, reason: str) -> None:
    """Its outcome follows when its pages are back; nothing happens to one that has ended."""
    bounded_text("process.cancel", "reason", reason, host.limits.name_bytes, "name_bytes")
    process.child.cancel(reason)


CHILD: Mapping[str, HostFunction] = MappingProxyType(
    {
        "start": start,
        "[method]process.pollable": pollable,
        "[method]process.send": send,
        "[method]process.receive": receive,
        "[method]process.outcome": outcome,
        "[method]process.cancel": cancel,
    }
)
