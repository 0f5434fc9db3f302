"""Children: programs that an instance has started, each an instance of its own, inside of it.

    instance 7                    its guest, its queues
     └ instance 12, a child       runs in the nursery of 7, so it ends before 7 can

A child ends when its parent lets go of it, ends or is cancelled; its outcome can be seen only when
its pages are back. What it sends is its parent's to receive; everything else that it says goes
where the parent's words go. Nothing here may keep a child alive that nobody holds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import attrs
import trio

from pie_trio.actors.instance import Instance
from pie_trio.config import Limits
from pie_trio.errors import BadRequest, PieError, Terminated, TooMany
from pie_trio.handles import Outlet
from pie_trio.mailbox import Reply
from pie_trio.messages import InstanceEnded, OutputEvent
from pie_trio.outlet import OutputReader
from pie_trio.program_loader import ProgramLike


@attrs.frozen(eq=False)
class ChildOutlet:
    """Implements `handles.Outlet` for a child."""

    messages: Outlet
    everything_else: Outlet

    async def put(self, event: OutputEvent) -> None:
        outlet = self.messages if event.kind == "message" else self.everything_else
        await outlet.put(event)


@attrs.frozen
class ChildRequest:
    """What a parent asks for. Without a name the program is the parent's own."""

    program: str
    arguments: tuple[str, ...]
    deadline_seconds: float | None


@attrs.define(eq=False)
class Children:
    """Implements `handles.ChildStarter` for one instance."""

    parent: Instance
    program: ProgramLike  # the parent's
    nursery: trio.Nursery
    outlet: Outlet  # where the parent says what is not for its own parent
    limits: Limits
    _launch: Callable[[Children, ChildRequest], Awaitable[Instance]]
    _held: int = attrs.field(default=0, init=False)  # by the guest, or being started for it

    async def start(
        self, program: str, arguments: Sequence[str], deadline_seconds: float | None
    ) -> Child:
        """Cancelled: nothing was started. Raises what a launch raises."""
        self._check_room()
        self._held += 1
        try:
            request = ChildRequest(program, tuple(arguments), deadline_seconds)
            instance = await self._launch(self, request)
        except BaseException:
            self._held -= 1
            raise
        return Child(self, instance, instance.outlet.attach())

    def _check_room(self) -> None:
        if self._held >= self.limits.children_per_instance:
            raise TooMany(
                f"children_per_instance: {self._held} children are held; drop those that have ended"
            )
        if self.parent.depth >= self.limits.children_depth:
            raise TooMany(f"children_depth: {self.parent.depth} generations are above a child here")

    def released(self) -> None:
        self._held -= 1


@attrs.define(eq=False)
class Child:
    """Implements `handles.ChildHandle`."""

    _family: Children
    _instance: Instance
    _reader: OutputReader
    _is_closed: bool = attrs.field(default=False, init=False)

    @property
    def ended(self) -> Reply[InstanceEnded]:
        return self._instance.ended

    @property
    def failure(self) -> PieError | None:
        return self._instance.failure

    @property
    def is_readable(self) -> bool:
        return self._is_closed or self._reader.is_readable

    async def wait_readable(self) -> None:
        if not self.is_readable:
            await self._reader.wait_changed()

    def receive(self) -> str | None:
        event = self._reader.take()
        return None if event is None else event.value

    def send(self, message: str) -> None:
        if self._instance.is_finished:
            raise Terminated("the child has ended")
        try:
            self._instance.inbox.deliver(message)
        except BadRequest as full:
            raise TooMany(f"child_mailbox_bytes: {full}") from None

    def cancel(self, reason: str) -> None:
        self._instance.terminate(reason)

    def close(self) -> None:
        """Ends it; its pages are back before its parent's are."""
        if self._is_closed:
            return
        self._is_closed = True
        self._instance.terminate("its parent let go of it")
        self._reader.detach()
        self._family.released()
