"""Recorded guests: a source of programs whose instances tell every host call as an event.

An instance's events start with what a replay needs beside the replies: program, arguments, seed,
and the bounds that a guest can run into without any host call. A child does not run again, so what
it wrote is kept whole, to be shown. Nothing here writes: the events go where all events of the
engine go.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Final

import attrs
import trio

from pie_trio.config import Limits
from pie_trio.events import RecordingStarted
from pie_trio.guest_output import OUTPUT_CALLS
from pie_trio.home import Home
from pie_trio.messages import Owner
from pie_trio.ports import Ports
from pie_trio.program_loader import LoadedProgram, LoaderMaker, ProgramLoader
from pie_trio.services.program_store import ProgramRecord
from pie_trio.wasm.guest import Guest, Sandbox
from pie_trio.wasm.host.interfaces import host_interfaces
from pie_trio.wasm.host.state import InstanceHost
from pie_trio.wasm.recording import Recording, recorded

OnCall = Callable[[Owner], None]
FELT_LIMITS: Final = (
    "memory_guest_bytes",
    "resources_per_guest",
    "host_call_bytes",
    "async_stack_bytes",
    "guest_table_elements",
    "guest_tables",
    "guest_memories",
    "guest_core_instances",
    "journal_argument_bytes",  # which arguments are kept whole
)


def recording_loader(
    ports: Ports, on_call: OnCall | None = None, *, is_quiet: bool = False
) -> LoaderMaker:
    """For an engine whose every instance is recorded; the events go to these ports.

    `on_call` is told before each host call whose it is; a quiet loader tells nothing else.
    """

    def make(
        sandbox: Sandbox, home: Home, limits: Limits, say: Callable[[str], None]
    ) -> RecordingLoader:
        loader = ProgramLoader(sandbox, home, limits, say, recorded(host_interfaces()))
        return RecordingLoader(loader, ports, on_call, is_quiet)

    return make


@attrs.frozen(eq=False)
class RecordingLoader:
    """Implements `ProgramSource`."""

    loader: ProgramLoader
    ports: Ports
    on_call: OnCall | None
    is_quiet: bool

    async def load(self, record: ProgramRecord) -> RecordedProgram:
        loaded = await self.loader.load(record)
        return RecordedProgram(loaded, self.ports, self.on_call, self.is_quiet)


@attrs.frozen(eq=False)
class RecordedProgram:
    """Implements `ProgramLike`."""

    loaded: LoadedProgram
    ports: Ports
    on_call: OnCall | None
    is_quiet: bool

    @property
    def identity(self) -> str:
        return self.loaded.identity

    @property
    def arguments(self) -> tuple[str, ...]:
        return self.loaded.arguments

    def open_guest(
        self,
        host: InstanceHost,
        *,
        memory_bytes: int,
        on_park: Callable[[], None],
        on_wake: Callable[[], None],
        on_slice: Callable[[], None],
    ) -> AbstractAsyncContextManager[Guest]:
        return self.loaded.open_guest(
            self._recording(host),
            memory_bytes=memory_bytes,
            on_park=on_park,
            on_wake=on_wake,
            on_slice=on_slice,
        )

    def _recording(self, host: InstanceHost) -> Recording:
        hidden, emit = len(self.loaded.arguments), self.ports.emit
        if not self.is_quiet:
            emit(self._started(host, hidden))
        told = None if self.on_call is None else partial(self.on_call, host.owner)
        instance, limits = host.owner.instance, host.limits
        whole = OUTPUT_CALLS if host.parent else frozenset[str]()
        return Recording(host, instance, limits, emit, hidden, told, whole, self.is_quiet)

    def _started(self, host: InstanceHost, hidden: int) -> RecordingStarted:
        return RecordingStarted(
            trio.current_time(),
            host.owner.instance,
            self.loaded.identity,
            self.loaded.digest,
            self.loaded.component,
            host.arguments[hidden:],
            self.ports.streams.seed,
            {name: getattr(host.limits, name) for name in FELT_LIMITS},
            host.parent,
        )
