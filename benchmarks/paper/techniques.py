"""Figure 8: techniques as programs, and at their client where somebody's completions allow it.

Everything is greedy, so both sides write the same, but for what other engines' arithmetic changes.
Baselines: our engine, every request (a) prefilled anew or (b) with a prefix cache, and others
behind their own servers. Where one cannot do it at all, the figure says why.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from statistics import mean
from typing import Any

import attrs
import trio

from benchmarks.paper import thoughts
from benchmarks.paper.completions import Talk, run_program
from benchmarks.paper.neighbours import (
    BEAMS,
    GRAMMAR,
    LLAMA_CPP,
    LOOKUP,
    NAMES,
    OPENVINO,
    PLAIN,
    Neighbour,
    open_neighbours,
)
from benchmarks.paper.proxy import open_proxy
from benchmarks.paper.record import Run, rotated
from benchmarks.paper.served import GUESTS, Served, open_served
from pie_trio.client import Client, open_client

SECTION = "fig8"
TRIP_SECONDS = 0.040
MANY = 3
SAMPLE_SECONDS = 2.0  # what is sooner answered is asked again,
ASKED_MAX = 4  # but not without end
QUICK = ("text-completion", "prefix-tree", "prefix-caching", "constrained-decoding")
OURS, ANEW, CACHED = "inferlet", "anew", "cached"
NO_DISTRIBUTIONS = "its completions show no distributions, so its client cannot choose among tokens"
NO_GUESSES = "it takes no guesses: its client cannot have several tokens checked at once"
NO_PAGES = "it shows neither pages nor masks, so its client cannot forget a part"


@attrs.frozen
class Technique:
    """A shipped program, what it is told, and the same at a client; why not, where it cannot be."""

    program: str
    arguments: tuple[str, ...]
    outside: Callable[[Any], Awaitable[object]] | None = None
    needs: str = PLAIN  # of whoever completes
    reasons: dict[str, str] = attrs.field(factory=dict)

    @property
    def name(self) -> str:
        return self.program.removesuffix("-py")

    @property
    def ways(self) -> tuple[str, ...]:
        """All in which it can be done."""
        if self.outside is None:
            return (OURS,)
        own = (ANEW, CACHED) if self.needs == PLAIN else ()
        return (OURS, *own, *(name for name in NAMES if name not in self.reasons))


TOKENS = thoughts.TOKENS
LENGTH = ("--max-tokens", str(TOKENS))
TWICE = ("--max-tokens", str(2 * TOKENS))


def _own(reason: str) -> dict[str, str]:
    """The reason for which no client of our own plain completions can do it."""
    return dict.fromkeys((ANEW, CACHED), reason)


TECHNIQUES = (
    Technique(
        "text-completion-py", ("--prompt", thoughts.QUESTION, *TWICE), thoughts.text_completion
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
    Technique(
        "constrained-decoding",
        TWICE,
        thoughts.constrained_decoding,
        GRAMMAR,
        _own("plain completions take no grammar"),
    ),
    Technique(
        "beam-search",
        ("--beams", str(thoughts.BEAMS), *LENGTH),
        thoughts.beam_search,
        BEAMS,
        {**_own(NO_DISTRIBUTIONS), LLAMA_CPP: "its server has no beam search"},
    ),
    Technique(
        "speculative-decoding",
        ("--look-back", "2", *TWICE),
        thoughts.speculative_decoding,
        LOOKUP,
        _own(NO_GUESSES),
    ),
    Technique(
        "jacobi-decoding",
        TWICE,
        reasons={
            **_own(NO_GUESSES),
            LLAMA_CPP: "its guesses come from a draft model or from n-grams, never from its passes",
            OPENVINO: "its guesses come from a draft model or from the prompt, never from passes",
        },
    ),
    Technique(
        "attention-sink",
        (*TWICE, "--sink", "32", "--window", "16"),
        reasons={
            **_own(NO_PAGES),
            LLAMA_CPP: "it shifts a full context for all alike; no request can set sink and window",
            OPENVINO: "it evicts by what attention scored, for all requests alike, not by place",
        },
    ),
)


@attrs.frozen(eq=False)
class Bench:
    """Whoever can be asked."""

    served: Served
    neighbours: Sequence[Neighbour]

    def neighbour(self, name: str, feature: str) -> Neighbour | None:
        for each in self.neighbours:
            if each.name == name and feature in each.features:
                return each
        return None

    def ways(self, technique: Technique) -> list[str]:
        return [
            way
            for way in technique.ways
            if way not in NAMES or self.neighbour(way, technique.needs) is not None
        ]


def measure(run: Run) -> None:
    run.facts["reasons"] = {each.name: each.reasons for each in TECHNIQUES if each.reasons}
    chosen = [t for t in TECHNIQUES if t.name in QUICK or not run.sizes.is_quick]
    needed = frozenset(technique.needs for technique in chosen)
    with open_served(run.model) as served, open_neighbours(run, needed) as neighbours:
        bench = Bench(served, neighbours)
        _warm_up(bench, chosen)
        for turn in range(1, run.sizes.rounds + 1):
            run.say(f"{SECTION}: round {turn} of {run.sizes.rounds}")
            for technique in rotated(chosen, turn):
                _round(run, bench, technique, turn)


def _warm_up(bench: Bench, chosen: Sequence[Technique]) -> None:
    """Programs are compiled, threads are there, and the long beginning lies in every cache."""
    for technique in chosen:
        for way in bench.ways(technique):
            if way == OURS or way in NAMES or technique is chosen[0]:
                trio.run(_measured, bench, technique, way, 1, "warm")


def _round(run: Run, bench: Bench, technique: Technique, turn: int) -> None:
    """One at a time in every round, a short one more often; several at once in the first."""
    for way in rotated(bench.ways(technique), turn):
        case = f"{technique.name} {way}"
        latencies: list[float] = []
        while len(latencies) < ASKED_MAX and sum(latencies) < SAMPLE_SECONDS:
            name = f"{turn}-{len(latencies)}"
            seconds, tokens = trio.run(_measured, bench, technique, way, 1, name)
            latencies.append(seconds)
        run.note(SECTION, case, turn, latency=mean(latencies), tokens=tokens, asked=len(latencies))
        if turn == 1 and not run.sizes.is_quick:
            many = run.sizes.of(MANY, least=2)
            seconds, _ = trio.run(_measured, bench, technique, way, many, f"{turn} of {many}")
            run.note(SECTION, case, turn, rate=many / seconds)


async def _measured(
    bench: Bench, technique: Technique, way: str, count: int, name: str
) -> tuple[float, int]:
    """Seconds until all have answered, and the tokens that were written for it. What a cache has
    kept is the long beginning, and nothing else."""
    neighbour = bench.neighbour(way, technique.needs)
    if neighbour is not None:
        with neighbour.running():
            async with open_proxy(neighbour.address, TRIP_SECONDS) as address:
                talks: list[Any] = [
                    neighbour.talk(address, f"Case {technique.name} {name}.{place}.\n")
                    for place in range(count)
                ]
                seconds = await _timed(technique, talks)
                return seconds, sum(sum(talk.counts) for talk in talks)
    bench.served.steps()
    seconds = await _served_seconds(bench, technique, way, count, name)
    return seconds, sum(int(step["tokens"]) for step in bench.served.steps())


async def _served_seconds(
    bench: Bench, technique: Technique, way: str, count: int, name: str
) -> float:
    served = open_proxy(bench.served.address, TRIP_SECONDS)
    async with served as address, open_client(address) as client:
        complete = await client.install_file(GUESTS / "complete.py", overwrite=True)
        if way == OURS:
            return await _together([_inside(client, technique)] * count)
        caches = [f"{technique.name} {name} {place}" for place in range(count)]
        talks = [Talk(client, complete, cache if way == CACHED else None) for cache in caches]
        return await _timed(technique, talks)


async def _timed(technique: Technique, talks: Sequence[Any]) -> float:
    assert technique.outside is not None, "it has ways outside"
    if technique.outside is thoughts.prefix_caching:
        for talk in talks:
            await talk.remember(thoughts.library())
    return await _together([partial(technique.outside, talk) for talk in talks])


def _inside(client: Client, technique: Technique) -> Callable[[], Awaitable[object]]:
    return partial(run_program, client, technique.program, *technique.arguments)


async def _together(jobs: Sequence[Callable[[], Awaitable[object]]]) -> float:
    started = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for job in jobs:
            nursery.start_soon(job)
    return time.perf_counter() - started
