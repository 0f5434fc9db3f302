"""What a run of the engine's benchmark measures, of whom, and how often. Pure.

A case is asked for several times in a round, in pieces that last about as long as a shared machine
stays the same: its processors move between cores, and what strangers do there changes by seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from benchmarks.engine_peers import VLLM, Peer

CONTEXT = 32
DECODES = {1: 32, 8: 24, 32: 12, 64: 8}  # sequences and steps
PREFILLS = (512, 2048)
LIMIT_OF_CASE = {"decode 1": "read_bytes", "prefill 512": "operations"}
SELDOM = ("decode 64", "prefill 2048")
SELDOM_ROUNDS = 3  # such cases, and the engines at the side, in each third round
PARTS = 3  # of a round, in each of which the other cases are asked for


@attrs.frozen
class Case:
    """What an engine is asked for: `order` are the arguments of `op`."""

    name: str
    op: str
    order: dict[str, Any]

    @property
    def limit(self) -> str | None:
        """Of the machine, against which our engine is held."""
        return LIMIT_OF_CASE.get(self.name)


@attrs.frozen
class At:
    """When: in which round, and in which part of it."""

    turn: int
    part: int

    @property
    def is_seldom(self) -> bool:
        return self.turn % SELDOM_ROUNDS == 0 and not self.part


@attrs.frozen
class Plan:
    """How much of it: a quick run takes fewer rounds of fewer cases."""

    model: str
    directory: Path
    threads: int
    rounds: int
    starts: int
    arrivals: int
    questions: int
    only: tuple[str, ...] | None  # engines; none: all
    is_quick: bool

    def takes(self, peer: Peer) -> bool:
        return (self.only is None or peer.name in self.only) and not (
            self.is_quick and peer.is_side
        )

    def moments(self, turn: int, case: str = "") -> Iterator[At]:
        parts = 1 if self.is_quick or case in SELDOM else PARTS
        return (At(turn, part) for part in range(parts))

    def is_due(self, peer: Peer, case: str, at: At) -> bool:
        is_seldom = peer.is_side or case in SELDOM
        if peer.name == VLLM and case not in ("decode 32", *SELDOM):
            is_seldom = True
        return not is_seldom or (at.is_seldom and not self.is_quick)


def cases() -> Iterator[Case]:
    for sequences, steps in DECODES.items():
        order = {"sequences": sequences, "context": CONTEXT, "steps": steps}
        yield Case(f"decode {sequences}", "decode", order)
    for tokens in PREFILLS:
        yield Case(f"prefill {tokens}", "prefill", {"tokens": tokens})
