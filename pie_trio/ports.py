"""Everything that is not deterministic enters here: production hands in the world, tests another.

Time is Trio's clock, which a test replaces as a whole; what is left are the wall clock, random
streams, identities, fault points and the log. No other module reads any of these by itself.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable

import attrs

from pie_trio.events import Event


def _drop(_event: Event) -> None:
    """The default sink of events."""


def _never(_name: str) -> None:
    """The default of fault points: nothing happens."""


@attrs.define(eq=False)
class RandomStreams:
    """Named, independent streams: a draw from one never shifts another."""

    seed: int
    _streams: dict[str, random.Random] = attrs.field(factory=dict, init=False)

    def stream(self, name: str) -> random.Random:
        if name not in self._streams:
            self._streams[name] = random.Random(f"{self.seed}/{name}")
        return self._streams[name]

    def fresh(self, name: str) -> random.Random:
        """A stream of its own that is not kept here: for the life of one instance."""
        return random.Random(f"{self.seed}/{name}")


@attrs.frozen(eq=False)
class Ports:
    """The seams of one engine."""

    streams: RandomStreams
    wall: Callable[[], float] = time.time  # seconds since 1970
    uuid: Callable[[], str] = lambda: str(uuid.uuid4())
    hit: Callable[[str], None] = _never  # fault point; may raise what the fault would raise
    emit: Callable[[Event], None] = _drop

    @property
    def engine_seed(self) -> int:
        return self.streams.seed
