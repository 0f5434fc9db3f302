"""Figure 8: techniques as programs, and at their client where plain completions allow it.

Everything is greedy, so both sides write the same. Where a client of completions cannot do it at
all, the figure says why and the program stands alone.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial

import attrs
import trio

from benchmarks.paper import thoughts
from benchmarks.paper.completions import Talk, run_program
from benchmarks.paper.proxy import open_proxy
from benchmarks.paper.record import Run, rotated
from benchmarks.paper.served import GUESTS, Served, open_served
from pie_trio.client import Client, open_client

SECTION = "fig8"
TRIP_SECONDS = 0.040
MANY = 3
NO_CHOICE = "plain completions show no distributions, so their client cannot choose among tokens"
NO_PAGES = "plain completions show no pages and no masks, so their client cannot forget a part"
NO_GUESSES = "plain completions take no guesses: their client cannot have several tokens checked"


@attrs.frozen
class Technique:
    """A shipped program, what it is told, and the same at a client or why there is none."""

    program: str
    arguments: tuple[str, ...]
    outside: Callable[[Talk], Awaitable[object]] | None = None
    reason: str = ""

    @property
    def name(self) -> str:
        return self.program.removesuffix("-py")


TOKENS = thoughts.TOKENS
LENGTH = ("--max-tokens", str(TOKENS))
TECHNIQUES = (
    Technique(
        "text-completion-py",
        ("--prompt", thoughts.QUESTION, "--max-tokens", str(2 * TOKENS)),
        thoughts.text_completion,
    ),
    Technique("prefix-tree", LENGTH, thoughts.prefix_tree),
    Technique("tree-of-thought", (*LENGTH, "--temperature", "0"), thoughts.tree_of_thought),
    Technique(
        "recursion-of-thought",
        (*LENGTH, "--depth", "2", "--script", "branch,branch,branch"),
        thoughts.recursion_of_thought,
    ),
    Technique("graph-of-thought", LENGTH, thoughts.graph_of_thought),
    Technique(
        "skeleton-of-thought", (*LENGTH, "--plan-tokens", "40"), thoughts.skeleton_of_thought
    ),
    Technique("prefix-caching", LENGTH, thoughts.prefix_caching),
    Technique("beam-search", ("--beams", "3", *LENGTH), reason=NO_CHOICE),
    Technique("speculative-decoding", ("--max-tokens", str(2 * TOKENS)), reason=NO_GUESSES),
    Technique("jacobi-decoding", ("--max-tokens", str(2 * TOKENS)), reason=NO_GUESSES),
    Technique(
        "attention-sink",
        ("--max-tokens", str(2 * TOKENS), "--sink", "32", "--window", "16"),
        reason=NO_PAGES,
    ),
)


def measure(run: Run) -> None:
    run.facts["reasons"] = {each.name: each.reason for each in TECHNIQUES if each.reason}
    chosen = [each for each in TECHNIQUES if each.outside or not run.sizes.is_quick]
    with open_served(run.model) as served:
        for technique in chosen[:1] if run.sizes.is_quick else chosen:
            trio.run(_seconds, served, technique, True, 1)
        for turn in range(1, run.sizes.rounds + 1):
            run.say(f"{SECTION}: round {turn} of {run.sizes.rounds}")
            for technique in rotated(chosen, turn):
                _round(run, served, technique, turn)


def _round(run: Run, served: Served, technique: Technique, turn: int) -> None:
    """One at a time in every round, several at once in the first."""
    ways = ("inferlet", "anew") if technique.outside else ("inferlet",)
    for way in rotated(ways, turn):
        case, is_inside = f"{technique.name} {way}", way == "inferlet"
        seconds = trio.run(_seconds, served, technique, is_inside, 1)
        run.note(SECTION, case, turn, latency=seconds)
        if turn == 1 and not run.sizes.is_quick:
            many = run.sizes.of(MANY, least=2)
            seconds = trio.run(_seconds, served, technique, is_inside, many)
            run.note(SECTION, case, turn, rate=many / seconds)


async def _seconds(served: Served, technique: Technique, is_inside: bool, count: int) -> float:
    async with open_proxy(served.address, TRIP_SECONDS) as address, open_client(address) as client:
        complete = await client.install_file(GUESTS / "complete.py", overwrite=True)
        started = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(_one(client, complete, technique, is_inside))
        return time.perf_counter() - started


def _one(
    client: Client, complete: str, technique: Technique, is_inside: bool
) -> Callable[[], Awaitable[object]]:
    if is_inside or technique.outside is None:
        return partial(run_program, client, technique.program, *technique.arguments)
    return partial(technique.outside, Talk(client, complete))
