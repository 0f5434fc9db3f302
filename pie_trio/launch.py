"""What is to be started, and for whom: a client's launch, or an instance's child.

Pure: it makes the instance's record and starts nothing. A child differs from what a client has
launched in where its words go, how much of them may wait, and what it tells when it is cut off.
"""

from __future__ import annotations

import json
import math

import attrs
import trio

from pie_trio.actors.instance import Instance
from pie_trio.children import ChildOutlet, Children, ChildRequest
from pie_trio.config import Limits
from pie_trio.handles import Outlet
from pie_trio.messages import Owner
from pie_trio.ports import Ports
from pie_trio.program_loader import ProgramLike
from pie_trio.services.launch_input import ARGUMENTS_KEY, launch_arguments
from pie_trio.services.program_store import ProgramRecord

SURROUNDINGS = "its parent has ended"


@attrs.frozen(eq=False)
class Launch:
    """A program with all that an instance of it needs."""

    loaded: ProgramLike
    arguments: tuple[str, ...]
    user: str
    tenant: str
    input_text: str = ""
    capture: bool = True
    family: Children | None = None  # of the instance that starts it; none: a client does
    deadline_seconds: float = math.inf

    def instance(self, owner: Owner, limits: Limits, ports: Ports) -> Instance:
        if self.family is None:
            return Instance(owner, self.user, self.input_text, limits, ports, self.capture)
        # What waits between a child and its parent is little: it is charged to the parent.
        size = limits.child_mailbox_bytes
        return Instance(
            owner,
            self.user,
            self.input_text,
            attrs.evolve(limits, outbox_bytes=size, signals_bytes=size),
            ports,
            self.capture,
            parent=self.family.parent,
            deadline=trio.current_time() + self.deadline_seconds,
            surroundings=SURROUNDINGS,
        )

    def outlet_of(self, instance: Instance) -> Outlet:
        if self.family is None:
            return instance.outlet
        return ChildOutlet(instance.outlet, self.family.outlet)


def child_launch(
    loaded: ProgramLike, record: ProgramRecord | None, family: Children, request: ChildRequest
) -> Launch:
    """Of an installed program, or without a record of the parent's own. Raises `BadRequest`."""
    arguments, text = request.arguments, json.dumps({ARGUMENTS_KEY: list(request.arguments)})
    if record is not None:
        arguments = tuple(launch_arguments(text, family.limits, call=record.call))
    seconds = math.inf if request.deadline_seconds is None else request.deadline_seconds
    parent = family.parent
    return Launch(
        loaded,
        arguments,
        parent.user,
        parent.tenant,
        text,
        family=family,
        deadline_seconds=seconds,
    )
