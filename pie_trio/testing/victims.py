"""Who can be cancelled in a simulated world, and where everybody stands while nobody is.

Owns the names of victims: a kind and a number, in the order of birth, the same in every run of a
scenario. The census looks at every step and changes nothing. Nothing here ever raises into Trio,
which would silently remove the instrument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import attrs
import trio

from pie_trio.actors.instance import Instance
from pie_trio.errors import BadConfig
from pie_trio.services.worker_link import LocalLink
from pie_trio.testing.await_sites import Site, sites_of
from pie_trio.testing.cancellation_probe import Victim, all_tasks, can_be_told, is_below
from pie_trio.testing.world import World

INSTANCE: Final = "instance "
CONNECTION: Final = "Connection.run"
WORKER: Final = "worker pretend"
KINDS: Final = ("instance", "connection", "goodbye", "clients", "worker", "stop")


@attrs.frozen
class Victims:
    """Where in a world a victim is found: a kind, and which of them, in the order of their birth.

    `instance`: it is terminated. `connection`: its time is up. `goodbye`: the server says goodbye
    to it. `clients`: whoever runs the scenario goes away. `worker`: it is lost, and its generation
    ends. `stop`: the engine is stopped.
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
    doors: list[trio.lowlevel.Task | None] = attrs.field(factory=list)  # who let each of them in

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        if task.name.startswith(INSTANCE):
            self.instances += 1
        elif task.name.endswith(CONNECTION):
            self.connections.append(task)
            self.doors.append(
                None if task.parent_nursery is None else task.parent_nursery.parent_task
            )

    def victims(self) -> Iterator[Victims]:
        for number in range(self.instances):
            yield Victims("instance", number)
        for number in range(len(self.connections)):
            yield Victims("connection", number)
            yield Victims("goodbye", number)
        yield Victims("clients")
        yield Victims("worker")
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
                yield Victims("connection", self.connections.index(current))
            elif current in self.doors:
                yield Victims("goodbye", self.doors.index(current))
            elif current is self.scenario_task:
                yield Victims("clients")
            elif current.name == WORKER:
                yield Victims("worker")
            current = current.parent_nursery.parent_task if current.parent_nursery else None


def victim_in(victims: Victims, world: World, births: Births, scope: trio.CancelScope) -> Victim:
    if victims.kind == "instance":
        return _instance(victims.number, world)
    if victims.kind == "connection":
        return _connection(victims.number, births)
    if victims.kind == "goodbye":
        return _goodbye(victims.number, births)
    if victims.kind == "clients":
        task = trio.lowlevel.current_task()
        return Victim(lambda each: is_below(each, task), scope.cancel, _never)
    if victims.kind == "worker":
        return _worker()
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


def _worker() -> Victim:
    """The generation that lives when it is lost; later ones are not its business."""
    links: list[LocalLink] = []

    def lose() -> None:
        (task,) = (each for each in all_tasks() if each.name == WORKER)
        frame = task.coro.cr_frame
        assert frame is not None, "a model lives as long as its engine"
        links.append(frame.f_locals["link"])
        links[0].lose("somebody pulled the plug")

    def is_gone() -> bool:
        return bool(links) and links[0].socket is not None and links[0].socket._is_closed

    return Victim(lambda task: _is_below_name(task, WORKER), lose, is_gone)


def _connection(number: int, births: Births) -> Victim:
    """Its time is up: the scope that bounds its life ends."""

    def connection() -> Any:
        frame = births.connections[number].coro.cr_frame
        assert frame is not None, "a connection is cancelled only while it lives"
        return frame.f_locals["self"]

    return _visitor(births.connections, number, lambda: connection()._life.cancel())


def _goodbye(number: int, births: Births) -> Victim:
    """What a server that stops does to one of its clients."""

    def stop() -> None:
        nursery = births.connections[number].parent_nursery
        assert nursery is not None, "a connection lives in the nursery of who let it in"
        nursery.cancel_scope.cancel()

    return _visitor(births.doors, number, stop)


def _visitor(
    roots: Sequence[trio.lowlevel.Task | None], number: int, cancel: Callable[[], None]
) -> Victim:
    """All that is below one of these tasks, once there are so many."""

    def root() -> trio.lowlevel.Task | None:
        return roots[number] if number < len(roots) else None

    def owns(task: trio.lowlevel.Task) -> bool:
        mine = root()
        return mine is not None and is_below(task, mine)

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
