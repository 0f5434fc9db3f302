"""Who can be cancelled in a simulated world, and where everybody stands while nobody is.

Owns the names of victims: a kind and a number, in the order of birth, the same in every run of a
scenario. The census looks at every step and changes nothing. Nothing here ever raises into Trio,
which would silently remove the instrument.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import attrs
import trio

from pie_trio.actors.instance import Instance
from pie_trio.errors import BadConfig
from pie_trio.testing.await_sites import Site, sites_of
from pie_trio.testing.cancellation_probe import Victim, can_be_told, is_below
from pie_trio.testing.world import World

INSTANCE: Final = "instance "
CONNECTION: Final = "Connection.run"
KINDS: Final = ("instance", "connection", "goodbye", "clients", "stop")


@attrs.frozen
class Victims:
    """Where in a world a victim is found: a kind, and which of them, in the order of their birth.

    `instance`: it is terminated. `connection`: its time is up. `goodbye`: the server says goodbye
    to it. `clients`: whoever runs the scenario goes away. `stop`: the engine is stopped.
    """

    kind: str
    number: int = 0

    def __str__(self) -> str:
        return f"{self.kind} {self.number}" if self.kind in KINDS[:3] else self.kind

    @classmethod
    def parse(cls, text: str) -> Victims:
        kind, _, number = text.partition(" ")
        if kind not in KINDS or (number and not number.isdigit()):
            raise BadConfig(f"no victim {text!r}; there are {', '.join(KINDS)}, some with a number")
        return cls(kind, int(number or 0))


@attrs.define(eq=False)
class Births(trio.abc.Instrument):
    """Who has lived in a world: instances and connections, in the order of their birth."""

    instances: int = 0
    connections: list[trio.lowlevel.Task] = attrs.field(factory=list)

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        if task.name.startswith(INSTANCE):
            self.instances += 1
        elif task.name.endswith(CONNECTION):
            self.connections.append(task)

    def victims(self) -> Iterator[Victims]:
        for number in range(self.instances):
            yield Victims("instance", number)
        for number in range(len(self.connections)):
            yield Victims("connection", number)
            yield Victims("goodbye", number)
        yield Victims("clients")
        yield Victims("stop")


@attrs.frozen
class Stand:
    """A suspension of a victim: its number among its own and among everybody's, and where."""

    step: int
    moment: int
    sites: frozenset[Site]
    is_told: bool  # of a cancellation that comes now


@attrs.define(eq=False)
class Census(Births):
    """Where everybody stood, step by step, while nobody was cancelled."""

    scenario_task: trio.lowlevel.Task | None = None
    stood: set[Site] = attrs.field(factory=set)
    stands: dict[Victims, list[Stand]] = attrs.field(factory=dict)
    steps: int = 0
    wrong: list[str] = attrs.field(factory=list)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        try:
            if getattr(task.coro, "cr_frame", None) is not None:
                self._note(task)
        except BaseException as error:  # Trio would remove an instrument that raises
            self.wrong.append(f"the harness is broken: {error!r}")

    def _note(self, task: trio.lowlevel.Task) -> None:
        self.steps += 1
        sites, told = frozenset(sites_of(task)), can_be_told(task)
        self.stood |= sites
        for victims in self._owners(task):
            known = self.stands.setdefault(victims, [])
            known.append(Stand(len(known) + 1, self.steps, sites, told))

    def _owners(self, task: trio.lowlevel.Task) -> Iterator[Victims]:
        yield Victims("stop")
        current: trio.lowlevel.Task | None = task
        while current is not None:
            if current.name.startswith(INSTANCE):
                yield Victims("instance", int(current.name.removeprefix(INSTANCE)))
            elif current in self.connections:
                number = self.connections.index(current)
                yield from (Victims("connection", number), Victims("goodbye", number))
            elif current is self.scenario_task:
                yield Victims("clients")
            current = current.parent_nursery.parent_task if current.parent_nursery else None


def victim_in(victims: Victims, world: World, births: Births, scope: trio.CancelScope) -> Victim:
    if victims.kind == "instance":
        return _instance(victims.number, world)
    if victims.kind in ("connection", "goodbye"):
        return _connection(victims, births)
    if victims.kind == "clients":
        task = trio.lowlevel.current_task()
        return Victim(lambda each: is_below(each, task), scope.cancel, _never)
    return Victim(lambda _task: True, world.stop, _never)


def _instance(number: int, world: World) -> Victim:
    name, found = f"{INSTANCE}{number}", list[Instance]()

    def instance() -> Instance:
        """Kept, because the engine may forget it when it has ended."""
        if not found:
            known = world.engine.instances()
            found.extend(each for each in known if each.owner.number == number)
        return found[0]

    def owns(task: trio.lowlevel.Task) -> bool:
        return _is_below_name(task, name) and bool(instance())

    return Victim(
        owns, lambda: instance().terminate(), lambda: bool(found) and found[0].is_finished
    )


def _connection(victims: Victims, births: Births) -> Victim:
    def root() -> trio.lowlevel.Task | None:
        known = births.connections
        return known[victims.number] if victims.number < len(known) else None

    def connection() -> Any:
        task = root()
        frame = None if task is None else task.coro.cr_frame
        assert frame is not None, "a connection is cancelled only while it lives"
        return frame.f_locals["self"]

    def owns(task: trio.lowlevel.Task) -> bool:
        mine = root()
        return mine is not None and is_below(task, mine)

    def cancel() -> None:
        connection().stop() if victims.kind == "goodbye" else connection()._life.cancel()

    def is_gone() -> bool:
        mine = root()
        return mine is not None and mine.coro.cr_frame is None

    return Victim(owns, cancel, is_gone)


def _is_below_name(task: trio.lowlevel.Task, name: str) -> bool:
    current: trio.lowlevel.Task | None = task
    while current is not None and current.name != name:
        current = current.parent_nursery.parent_task if current.parent_nursery else None
    return current is not None


def _never() -> bool:
    return False
