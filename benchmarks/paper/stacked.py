"""Figure 7: an agent that calls functions, and three optimisations of it, one on top of the other.

Its client's loop is the baseline: (a) prefills the documents with every turn, (b) has a cache.
"""

from __future__ import annotations

import time

import trio

from benchmarks.paper.completions import Talk, constant, run_program, value_of
from benchmarks.paper.prompts import Part
from benchmarks.paper.proxy import open_proxy
from benchmarks.paper.record import Run, rotated
from benchmarks.paper.served import GUESTS, Served, open_served
from pie_trio.client import open_client

SECTION = "fig7"
PROGRAM = "agent-react-bench"
AGENTS, TOKENS, DELAY_SECONDS, TRIP_SECONDS = 2, 32, 0.1, 0.040
INSIDE: dict[str, tuple[str, ...]] = {
    "inferlet": (),
    "documents kept": ("--prefix-cache",),
    "and calls beside": ("--prefix-cache", "--concurrent-calls"),
    "all three": ("--prefix-cache", "--concurrent-calls", "--drop-tools"),
}
OUTSIDE = ("anew", "cached")
WAYS = (*OUTSIDE, *INSIDE)


def measure(run: Run) -> None:
    many = run.sizes.of(AGENTS)
    ways = ("anew", "inferlet", "all three") if run.sizes.is_quick else WAYS
    with open_served(run.model) as served:
        trio.run(_seconds, served, "all three", 1, "warm")
        for turn in range(1, run.sizes.rounds + 1):
            for way in rotated(ways, turn):
                run.say(f"{SECTION}: {way}, round {turn} of {run.sizes.rounds}")
                seconds = trio.run(_seconds, served, way, many, f"{turn}")
                run.note(SECTION, way, turn, rate=many / seconds, agents=many)


async def _seconds(served: Served, way: str, count: int, name: str) -> float:
    """Until all agents have answered."""
    async with open_proxy(served.address, TRIP_SECONDS) as address, open_client(address) as client:
        complete = await client.install_file(GUESTS / "complete.py", overwrite=True)
        started = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for place in range(count):
                if way in INSIDE:
                    flags = (*INSIDE[way], "--max-tokens", str(TOKENS), "--repeat-document", "1")
                    nursery.start_soon(run_program, client, PROGRAM, *flags)
                else:
                    cache = f"{name} {place}" if way == "cached" else None
                    nursery.start_soon(_outside, Talk(client, complete, cache))
        return time.perf_counter() - started


async def _outside(talk: Talk) -> None:
    document, tools = constant(PROGRAM, "TOOL"), value_of(PROGRAM, "TOOLS")
    parts: list[Part] = [("text", document.format(name=name)) for name in tools]
    for name in tools:
        parts.append(("text", f"\nAction: {name}"))
        parts.append(("text", await talk.complete(parts, TOKENS, is_exact=True)))
        await trio.sleep(DELAY_SECONDS)
        parts.append(("text", f"\nObservation: {name} says 21."))
    await talk.complete([*parts, ("text", "\nAnswer:")], TOKENS, is_exact=True)
