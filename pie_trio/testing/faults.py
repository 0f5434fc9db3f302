"""What may go wrong in a simulated run: a numbered list that a seed draws, and what has come due.

A fault names a point that the run passes again and again, and says at which passing it strikes. The
same list gives the same run; `minimise` leaves out entries by their numbers. Each seed draws its
own subset of the kinds and of the limits (a swarm): a run with everything at once finds less. A
plan that is disarmed lets every later passing by, which is how liveness is tested.
"""

from __future__ import annotations

import errno
import os
import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Final

import attrs

from pie_trio.errors import BadConfig, TooMany

KINDS_AT_ONCE: Final = 4
FAULTS_OF_A_KIND: Final = 4

# Point -> among how many passings it is drawn. The part before the dot is the kind.
POINTS: Mapping[str, int] = MappingProxyType(
    {
        "worker.crash-before": 20,  # executing a batch
        "worker.crash-after": 20,  # executing it, before it has answered
        "worker.crash-between": 10,  # two steps of a batch that has several
        "worker.crash-idle": 6,  # some seconds after it said that it is ready
        "worker.hang": 20,  # the whole process, heartbeats too
        "worker.stuck": 20,  # in a batch, while its heartbeats go on
        "worker.slow": 20,
        "worker.pass-fails": 20,  # one request of a batch is answered with an error
        "worker.batch-fails": 20,
        "worker.never-starts": 3,
        "worker.start-fails": 3,
        "worker.start-slow": 3,
        "worker.foreign-greeting": 3,
        "link.drop": 30,  # of the worker's messages, heartbeats aside
        "link.delay": 30,
        "link.duplicate": 30,
        "link.reorder": 30,
        "link.torn": 30,
        "link.stale": 30,  # an answer of the generation before comes first
        "link.wrong": 30,  # an answer that does not fit its batch
        "link.busy": 20,  # the socket takes no message for a moment
        "link.gone": 20,  # it says that there is no such peer
        "kill.step": 150,  # an instance, after so many steps of instances' tasks
        "kill.call": 60,  # at a host call of a scripted guest
        "kill.dispatch": 20,  # who has a pass in the batch that leaves
        "kill.settle": 20,  # who is given an answer
        "net.disconnect": 150,
        "net.half-close": 150,
        "net.delay": 150,
        "net.dribble": 30,  # from now on a byte at a time
        "net.deaf": 40,  # the client reads nothing for a long time
        "net.refuse": 6,  # a connection is closed before its handshake
        "net.storm": 6,  # connections that come and go beside a client's
        "memory.hog": 6,  # somebody takes many pages for a while
        "guest.trap": 6,
        "guest.spin": 6,
        "guest.bomb": 6,
        "guest.forge": 6,
        "disk.read": 12,  # a program that is to be launched
        "jitter.all": 1,
        "stop.engine": 600,  # in the middle of everything
    }
)
# Bounds that a seed may tighten, each with the values that it draws from.
KNOBS: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "pages": (10, 14, 20, 28),
        "page_tokens": (2, 4, 16),
        "mailbox": (1, 2),
        "passes_waiting_max": (1, 3),
        "pass_values_waiting": (1, 3000),
        "batch_tokens": (2, 5, 16),
        "batch_passes": (1, 2),
        "batch_values": (16, 64),
        "page_wait_seconds": (0.05, 1.0),
        "outbox_bytes": (100, 1000),
        "detached_output_bytes": (200, 2000),
        "detached_write_seconds": (1.0,),
        "topic_messages": (1, 2),
        "signals_waiting": (1, 4),
        "heartbeat_lost_seconds": (4.0, 7.0),
        "batch_seconds_max": (3.0, 10.0),
        "worker_start_seconds": (2.0, 10.0),
        "worker_restarts_max": (1, 3),
        "worker_restart_backoff_seconds": (0.0, 2.0),
        "client_stall_seconds": (0.5, 3.0),
        "clients_max": (2, 4),
        "instances_max": (3, 6),
        "finished_max": (1, 3),
        "finished_seconds": (0.1, 5.0),
        "priority_ageing_seconds": (0.001, 0.02),
        "exports_max": (1, 2),
        "close_seconds": (0.1,),
        "upload_chunk_bytes": (64, 1024),
        "requests_per_client": (2, 8),
        "file_hold_seconds": (0.0,),
        "gather_seconds_min": (0.0, 1.0),
        "step_seconds": (0.0, 0.1),
        "trigger": (0, 1, 3, 4),
        "stream_bytes": (12, 100),
    }
)
KNOBS_AT_ONCE: Final = 5
# Points in production code that refuse by name when they strike: see `Ports.hit`.
REFUSABLE: Mapping[str, int] = MappingProxyType({"queue.submit": 60, "kvs.set": 8})
# Those that find the disk full: production has to put that into words.
WRITES: Mapping[str, int] = MappingProxyType(
    {"program_store.artifact": 4, "program_store.entry": 4}
)
KINDS: Final = tuple(
    dict.fromkeys([*(name.partition(".")[0] for name in POINTS), "point", "limits"])
)


@attrs.frozen
class Fault:
    """Strikes at the `at`-th passing of a point, counted from 0."""

    number: int
    point: str
    at: int
    size: float = 0.0  # below 1: how much, or which one, as the point needs it; of a limit: itself

    @property
    def kind(self) -> str:
        return self.point.partition(".")[0]

    def __str__(self) -> str:
        if self.kind == "limits":
            return f"#{self.number} {self.point} = {self.size:g}"
        return f"#{self.number} {self.point} @{self.at}"


@attrs.frozen
class Faults:
    """The kinds that a seed may draw from."""

    kinds: tuple[str, ...] = KINDS

    @classmethod
    def parse(cls, text: str) -> Faults:
        """`worker,kill`; `all`, `none`. Raises `BadConfig`."""
        if text in ("all", "none"):
            return cls() if text == "all" else cls(())
        names = tuple(name.strip() for name in text.split(",") if name.strip())
        unknown = [name for name in names if name not in KINDS]
        if unknown:
            raise BadConfig(f"no such kind of fault: {unknown[0]}; there are {', '.join(KINDS)}")
        return cls(tuple(kind for kind in KINDS if kind in names))

    def draw(self, seed: int) -> tuple[Fault, ...]:
        """The faults of a seed: a few kinds, a few of each."""
        dice = random.Random(f"{seed}/faults")
        kinds = [kind for kind in self.kinds if kind != "limits"]
        chosen = dice.sample(kinds, dice.randint(0, min(KINDS_AT_ONCE, len(kinds))))
        drawn = dict.fromkeys(strike for kind in chosen for strike in _strikes(kind, dice))
        faults = [(point, at, round(dice.random(), 6)) for point, at in drawn]
        if "limits" in self.kinds:
            knobs = random.Random(f"{seed}/limits")
            names = knobs.sample(sorted(KNOBS), knobs.randint(0, KNOBS_AT_ONCE))
            faults += [(f"limits.{name}", 0, knobs.choice(KNOBS[name])) for name in names]
        return tuple(Fault(number, *fault) for number, fault in enumerate(faults))


def _strikes(kind: str, dice: random.Random) -> list[tuple[str, int]]:
    """Points of one kind, and at which passing each."""
    points = {
        **POINTS,
        **{f"point.{name}": bound for name, bound in REFUSABLE.items()},
        **{f"disk.{name}": bound for name, bound in WRITES.items()},
    }
    names = [name for name in points if name.partition(".")[0] == kind]
    found = []
    for _ in range(dice.randint(1, FAULTS_OF_A_KIND)):
        name = dice.choice(names)
        # Early passings are passed in every run: half of the draws are from the first few.
        bound = points[name]
        bound = bound if dice.random() < 0.5 else min(bound, max(10, bound // 6))
        found.append((name, dice.randrange(bound)))
    return found


@attrs.define(eq=False)
class FaultPlan:
    """The faults of one run, and which have struck."""

    faults: tuple[Fault, ...]
    on_strike: Callable[[Fault], None]
    fired: list[Fault] = attrs.field(factory=list, init=False)
    passed: Counter[str] = attrs.field(factory=Counter, init=False)  # where something is planned
    is_armed: bool = attrs.field(default=True, init=False)
    _due: dict[str, dict[int, Fault]] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        for fault in self.faults:
            self._due.setdefault(fault.point, {})[fault.at] = fault

    def strikes(self, point: str) -> Fault | None:
        """Passes a point; the fault that strikes now, if one does."""
        due = self._due.get(point)
        if due is None or not self.is_armed:
            return None
        passing = self.passed[point]
        self.passed[point] = passing + 1
        fault = due.get(passing)
        if fault is not None:
            self.strike(fault)
        return fault

    def strike(self, fault: Fault) -> None:
        """This one strikes now, wherever its point is."""
        self.fired.append(fault)
        self.on_strike(fault)

    def awaits(self, point: str) -> bool:
        """Whether anything is planned there at all."""
        return self.is_armed and point in self._due

    def fault_points(self) -> Callable[[str], None]:
        """What production calls at its fault points."""
        is_asked = any(fault.kind in ("point", "disk") for fault in self.faults)
        return self._hit if is_asked else _nothing

    def _hit(self, name: str) -> None:
        if name in REFUSABLE and self.strikes(f"point.{name}"):
            raise TooMany(f"the fault plan refuses at {name}")
        if name in WRITES and self.strikes(f"disk.{name}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def disarm(self) -> None:
        self.is_armed = False


def only(faults: tuple[Fault, ...], numbers: Collection[int] | None) -> tuple[Fault, ...]:
    """Those with these numbers; all of them for None."""
    return tuple(fault for fault in faults if numbers is None or fault.number in numbers)


def _nothing(_name: str) -> None:
    """No fault point strikes in this run."""
