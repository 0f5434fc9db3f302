"""What the gateway needs of the engine and of one instance: nothing more is reachable from outside.

The engine and its instances implement these shapes; tests bring scripted ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from pie_trio.inbox import InstanceInbox
from pie_trio.mailbox import Reply
from pie_trio.messages import InstanceEnded, InstanceId
from pie_trio.outlet import OutputBuffer
from pie_trio.services.program_store import ProgramRecord, ProgramStore


class InstanceLike(Protocol):
    """One running program, or a finished one that is still remembered."""

    @property
    def id(self) -> InstanceId: ...
    @property
    def program(self) -> str: ...
    @property
    def user(self) -> str: ...
    @property
    def input_text(self) -> str: ...
    @property
    def started_at(self) -> float: ...
    @property
    def outlet(self) -> OutputBuffer: ...
    @property
    def inbox(self) -> InstanceInbox: ...
    @property
    def ended(self) -> Reply[InstanceEnded]: ...
    @property
    def is_finished(self) -> bool: ...
    def terminate(self, reason: str = "Signal") -> None: ...


I = TypeVar("I", bound=InstanceLike)  # noqa: E741


class EngineLike(Protocol[I]):
    """The engine, as a client may use it."""

    @property
    def programs(self) -> ProgramStore: ...
    async def launch(
        self,
        program: ProgramRecord,
        arguments: Sequence[str],
        *,
        user: str,
        tenant: str = "local",
        input_text: str = "",
        capture: bool = True,
    ) -> I: ...
    def find(self, instance_id: str, tenant: str = "local") -> I | None: ...
    def instances(self, tenant: str = "local") -> Sequence[I]: ...
    def forget(self, instance: I) -> None: ...
    def model_status(self) -> Mapping[str, int | float | str | list[int]]: ...
