"""A running inferlet: one task, one cancel scope, exactly one terminal event.

Whatever ends it (its return, its fault, a client, a lost worker, the shutdown), the order is the
same: its body has given back all that it held, then the terminal event is written, then `ended`
is filled. The last two are synchronous, so nobody can see the death before the pages are back.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import trio

from pie_trio.config import Limits
from pie_trio.errors import PieError, Terminated, retold
from pie_trio.events import InstanceFinished, InstanceLaunched
from pie_trio.inbox import InstanceInbox
from pie_trio.mailbox import Reply
from pie_trio.messages import InstanceEnded, InstanceId, OutputEvent, Owner
from pie_trio.outlet import OutputBuffer
from pie_trio.ports import Ports


class Instance:
    """What the engine and the gateway know of one inferlet."""

    def __init__(
        self,
        owner: Owner,
        user: str,
        input_text: str,
        limits: Limits,
        ports: Ports,
        capture: bool,
        *,
        parent: Instance | None = None,
        deadline: float = math.inf,
        surroundings: str = "the engine is stopping",
    ) -> None:
        """`surroundings`: what it tells when whatever it lives in ends before it does."""
        self.owner = owner
        self.user = user
        self.parent = parent  # none: a client has launched it
        self.input_text = input_text
        self.started_at = trio.current_time()
        self.ended_at: float | None = None
        self.outlet = OutputBuffer(limits, capture=capture)
        self.inbox = InstanceInbox(limits)
        self.ended: Reply[InstanceEnded] = Reply()
        self.failure: PieError | None = None  # why it did not return, once it has ended
        self._ports = ports
        self._surroundings = surroundings
        self._scope = trio.CancelScope(deadline=deadline)
        self._cause: PieError | None = None

    @property
    def id(self) -> InstanceId:
        return self.owner.instance

    @property
    def depth(self) -> int:
        """How many generations are above it."""
        return 0 if self.parent is None else self.parent.depth + 1

    @property
    def program(self) -> str:
        return self.owner.program

    @property
    def tenant(self) -> str:
        return self.owner.tenant

    @property
    def is_finished(self) -> bool:
        return self.ended.is_filled

    def terminate(self, reason: str = "Signal") -> None:
        """Ends it from outside; the terminal event follows when its pages are back."""
        self.end_with(Terminated(reason))

    def end_with(self, cause: PieError) -> None:
        """The first cause counts. Does nothing to what has ended."""
        if self._cause is None and not self.is_finished:
            self._cause = cause
            self._scope.cancel()

    async def run(self, body: Callable[[Instance], Awaitable[str]]) -> None:
        """The instance's whole life. `body` gives back what it took, however it ends."""
        self._ports.emit(InstanceLaunched(self.started_at, self.id, self.program, self.tenant))
        value: str | None = None
        try:
            self._ports.hit("instance.start")
            with self._scope:
                value = await body(self)
        finally:
            self._end(value)

    def _end(self, value: str | None) -> None:
        if value is None and self._cause is None:
            is_late = self._scope.cancelled_caught
            self._cause = Terminated("its deadline has passed" if is_late else self._surroundings)
        cause, self._cause = self._cause, None  # it holds the frames of the guest's last calls
        self.failure = None if cause is None else retold(cause)
        kind = None if cause is None else type(cause).__name__
        error = None if cause is None else str(cause) or kind
        self.ended_at = trio.current_time()
        seconds = self.ended_at - self.started_at
        self._ports.emit(
            InstanceFinished(
                self.ended_at, self.id, self.program, kind or "return", error or "", seconds
            )
        )
        value = value or ""
        self.outlet.close(
            OutputEvent("return", value) if error is None else OutputEvent("error", error)
        )
        self.ended.fill(InstanceEnded(self.id, value if error is None else "", error, kind))
