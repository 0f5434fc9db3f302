"""What a scenario gets: clients of the running engine, and a memory of all that they were told.

Clients are the public one over simulated streams. `run` does what a careful user does: when the
connection dies it comes back, attaches to its instance or launches anew. Every launch is written
down with its events, for the oracles. A scenario may raise nothing but `PieError`s of its own.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from pie_trio.client import Client, RemoteInstance, open_client_on
from pie_trio.client.errors import RemoteError, RequestRefused, ServerGone
from pie_trio.engine import Engine
from pie_trio.errors import PieError
from pie_trio.messages import OutputEvent
from pie_trio.testing.faults import FaultPlan
from pie_trio.testing.sim_net import SimListener

TRIES = 6
TERMINALS = ("return", "error")


@attrs.define(eq=False)
class Launch:
    """One launched instance, as its clients saw it."""

    program: str
    arguments: tuple[str, ...]
    id: str = ""
    events: list[OutputEvent] = attrs.field(factory=list)
    after_end: int = 0  # events that came after the terminal one
    lost_events: bool = False  # a connection died while events were on their way

    @property
    def terminal(self) -> OutputEvent | None:
        return next((event for event in self.events if event.kind in TERMINALS), None)

    @property
    def value(self) -> str | None:
        """What it returned, if it did."""
        end = self.terminal
        return end.value if end is not None and end.kind == "return" else None

    @property
    def said(self) -> str:
        return "".join(event.value for event in self.events if event.kind in ("stdout", "message"))


@attrs.define(eq=False)
class World:
    """One simulated world, while its scenario runs."""

    engine: Engine
    plan: FaultPlan
    listener: SimListener
    dice: random.Random  # the scenario's own
    reached: Counter[str]
    launches: list[Launch] = attrs.field(factory=list)
    refusals: list[str] = attrs.field(factory=list)
    is_stopping: Callable[[], bool] = lambda: False
    stop: Callable[[], None] = lambda: None  # ends the engine, as its operator would

    @asynccontextmanager
    async def connect(self, user: str = "local") -> AsyncIterator[Client]:
        """A client; raises `ServerGone` when that fails, as in the real world."""
        if self.plan.strikes("net.storm"):
            await self._storm()
        try:
            stream = self.listener.connect()
        except OSError as error:
            raise ServerGone(str(error)) from None
        limits = self.engine.settings.limits
        async with open_client_on(stream, user=user, limits=limits) as client:
            yield client

    async def run(
        self, program: str, *arguments: object, user: str = "local", patience: float = math.inf
    ) -> str | None:
        """Launches a program, reads it to its end, and returns its value; None if it has none.

        After so many seconds the user has no patience left and goes away; what still runs when
        the scenario ends is ended.
        """
        launch = Launch(program, tuple(map(str, arguments)))
        self.launches.append(launch)
        with trio.move_on_after(patience):
            await self.follow(launch, user)
        return launch.value

    async def follow(self, launch: Launch, user: str = "local") -> None:
        """Launches it, or goes on with it, until it has ended or is known to be lost."""
        for attempt in range(TRIES):
            try:
                async with self.connect(user) as client:
                    instance = await self._begin(client, launch)
                    await self._read(launch, instance)
                return
            except ServerGone:
                self.reached["a client lost its connection"] += 1
                launch.lost_events = True
            except RequestRefused as refusal:
                self.refusals.append(str(refusal))
                if launch.id:
                    return  # it has ended and is forgotten, or somebody else reads it
            if self.is_stopping() or launch.terminal is not None:
                return
            await trio.sleep(0.1 * 2**attempt)

    async def launch(self, client: Client, program: str, *arguments: object) -> RemoteInstance:
        """Over a client of the scenario's own; written down like the others."""
        launch = Launch(program, tuple(map(str, arguments)))
        self.launches.append(launch)
        return await self._begin(client, launch)

    async def read(self, instance: RemoteInstance) -> str | None:
        """To its end; its value, if it has one."""
        launch = self.launch_of(instance)
        await self._read(launch, instance)
        return launch.value

    def launch_of(self, instance: RemoteInstance) -> Launch:
        return next(each for each in self.launches if each.id == instance.id)

    async def _begin(self, client: Client, launch: Launch) -> RemoteInstance:
        if launch.id:
            self.reached["a client attached to an instance"] += 1
            return await client.attach(launch.id)
        instance = await client.launch(launch.program, arguments=launch.arguments)
        launch.id = instance.id
        return instance

    async def _read(self, launch: Launch, instance: RemoteInstance) -> None:
        async for event in instance:
            if launch.terminal is not None:
                launch.after_end += 1
            launch.events.append(event)

    async def _storm(self) -> None:
        """Connections that come, say nothing or little, and go."""
        for _ in range(8):
            try:
                stream = self.listener.connect()
                await stream.send_all(b"GET / HTTP/1.1\r\n")
                stream.reset()
            except (OSError, trio.BrokenResourceError):
                continue


def is_expected(error: BaseException) -> bool:
    """Whether a scenario may meet this error."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_expected, error.exceptions))
    return isinstance(error, (PieError, RemoteError))
