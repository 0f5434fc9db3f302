"""Figure 6: agents as inferlets, and the same agents at their client, near and far.

ReAct and CodeAct call tools eight times, a swarm of four hands on 32 messages. Latency is that of
one agent; throughput that of many at once. (a) prefills every turn anew, (b) has a prefix cache.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import trio

from benchmarks.paper.completions import Completions, Talk, constant, run_program
from benchmarks.paper.neighbours import PLAIN, Neighbour, open_neighbours
from benchmarks.paper.prompts import Part
from benchmarks.paper.proxy import open_proxy
from benchmarks.paper.record import Run, rotated
from benchmarks.paper.served import GUESTS, Served, open_served
from pie_trio.client import Client, open_client

CALLS, TOKENS, DELAY_SECONDS = 8, 16, 0.1
SWARM_ROUNDS, SWARM_TOKENS = 8, 8
ROLES = ("concept", "plot", "characters", "dialogue")
SYSTEMS = (
    "Invent ideas for a story.",
    "Write the plot of a story.",
    "Describe the people of a story.",
    "Write what people say in a story.",
)
REPLY = "It flows through ten countries."
QUESTION = "Where does the Danube end?"
FAR, ROUND_TRIPS = 0.040, (0.0, 0.010, 0.040)
WAYS = ("inferlet", "anew", "cached")
AGENTS = {"react": 4, "codeact": 4, "swarm": 2}


@attrs.frozen
class Room:
    """One connection and what is installed there."""

    client: Client
    complete: str
    swarm: str

    def talk(self, way: str, name: str) -> Talk:
        return Talk(self.client, self.complete, name if way == "cached" else None)


async def react_inside(room: Room, name: str) -> None:
    await run_program(
        room.client,
        *("agent-react", "--question", f"{QUESTION} {name}", "--calls", str(CALLS)),
        *("--reply", REPLY, "--delay-ms", str(int(DELAY_SECONDS * 1000))),
        *("--max-tokens", str(TOKENS)),
    )


async def react_outside(talk: Completions, name: str) -> None:
    parts: list[Part] = [("system", constant("agent-react", "SYSTEM"))]
    parts.append(("user", f"{QUESTION} {name}"))
    for _ in range(CALLS):
        parts.append(("text", "\nThought:"))
        parts.append(("text", await talk.complete(parts, TOKENS)))
        await trio.sleep(DELAY_SECONDS)
        parts.append(("text", f"\nObservation: {REPLY}"))
    await talk.complete([*parts, ("text", "\nAnswer:")], TOKENS)


def _codes() -> list[str]:
    return [f"print(12 * 34 + {turn})" for turn in range(CALLS)]


async def codeact_inside(room: Room, name: str) -> None:
    codes = [argument for code in _codes() for argument in ("--code", code)]
    await run_program(
        room.client,
        *("agent-codeact", "--question", f"What is 12 * 34 + 5? {name}", "--turns", str(CALLS)),
        *("--max-tokens", str(TOKENS), *codes),
    )


async def codeact_outside(talk: Completions, name: str) -> None:
    parts: list[Part] = [("system", constant("agent-codeact", "SYSTEM"))]
    parts.append(("user", f"What is 12 * 34 + 5? {name}"))
    for turn in range(CALLS):
        parts.append(("text", await talk.complete(parts, TOKENS)))
        parts.append(("user", f"The program said: {12 * 34 + turn}"))
    await talk.complete(parts, TOKENS)


async def swarm_inside(room: Room, name: str) -> None:
    async with trio.open_nursery() as nursery:
        for role in ROLES:
            nursery.start_soon(
                lambda role: run_program(
                    room.client,
                    *(room.swarm, role, "--group", name, "--idea", f"A lighthouse. {name}"),
                    *("--rounds", str(SWARM_ROUNDS), "--max-tokens", str(SWARM_TOKENS)),
                ),
                role,
            )


async def swarm_outside(talk: Completions, name: str) -> None:
    writers: list[list[Part]] = [[("system", system)] for system in SYSTEMS]
    text = f"A lighthouse. {name}"
    for _ in range(SWARM_ROUNDS):
        for parts in writers:
            parts.append(("user", text))
            text = await talk.complete(parts, SWARM_TOKENS)
            parts.append(("text", text))


Inside = Callable[[Room, str], Awaitable[None]]
Outside = Callable[[Completions, str], Awaitable[None]]
AGENT: dict[str, tuple[Inside, Outside, int]] = {  # and how often the client's loop asks
    "react": (react_inside, react_outside, CALLS + 1),
    "codeact": (codeact_inside, codeact_outside, CALLS + 1),
    "swarm": (swarm_inside, swarm_outside, len(ROLES) * SWARM_ROUNDS),
}


def measure(run: Run, agent: str) -> None:
    """Far away in every round; near by and many at once less often."""
    section = f"fig6-{agent}"
    peers = frozenset[str]() if run.sizes.is_quick else frozenset({PLAIN})
    with open_served(run.model) as served, open_neighbours(run, peers) as neighbours:
        for way in ("inferlet", "cached"):
            trio.run(_ask_all, served, agent, way, 1, 0.0, "warm")
        for each in neighbours:
            trio.run(_ask_neighbour, each, agent, 0.0, "warm")
        for turn in range(1, run.sizes.rounds + 1):
            is_first = turn == 1 and not run.sizes.is_quick
            for trip in ROUND_TRIPS if is_first and agent != "swarm" else (FAR,):
                for way in rotated((*WAYS, *neighbours), turn):
                    _one(run, served, agent, way, trip, turn)
        _throughput(run, served, agent, section)


def _one(
    run: Run, served: Served, agent: str, way: str | Neighbour, trip: float, turn: int
) -> None:
    name = way if isinstance(way, str) else way.name
    run.say(f"fig6-{agent}: {name}, {trip * 1e3:.0f} ms, round {turn}")
    if isinstance(way, str):
        seconds = trio.run(_ask_all, served, agent, way, 1, trip, f"{turn}")
    else:
        seconds = trio.run(_ask_neighbour, way, agent, trip, f"{turn}")
    asked = 1 if way == "inferlet" else AGENT[agent][2]
    case = f"{name} {trip * 1e3:.0f} ms"
    run.note(f"fig6-{agent}", case, turn, latency=seconds, trips=asked, trip=trip)


async def _ask_neighbour(neighbour: Neighbour, agent: str, trip: float, name: str) -> float:
    """Its cache holds nothing of this agent: a line before its prompt is of this round only."""
    _, outside, _ = AGENT[agent]
    mine = f"{trip} {name} 0"
    with neighbour.running():
        async with open_proxy(neighbour.address, trip) as address:
            started = time.perf_counter()
            await outside(neighbour.talk(address, f"Case {agent} {mine}.\n"), mine)
            return time.perf_counter() - started


def _throughput(run: Run, served: Served, agent: str, section: str) -> None:
    many = run.sizes.of(AGENTS[agent], least=2)
    for turn in () if run.sizes.is_quick else (1,):
        for way in rotated(WAYS, turn):
            run.say(f"{section}: {way}, {many} at once, round {turn}")
            seconds = trio.run(_ask_all, served, agent, way, many, FAR, f"many {turn}")
            run.note(section, f"{way} many", turn, rate=many / seconds, agents=many)


async def _ask_all(
    served: Served, agent: str, way: str, count: int, trip: float, name: str
) -> float:
    """Seconds until all of them have answered."""
    inside, outside, _ = AGENT[agent]
    async with (
        open_proxy(served.address, trip) as address,
        open_client(address) as client,
    ):
        complete = await client.install_file(GUESTS / "complete.py", overwrite=True)
        swarm = await client.install_file(GUESTS / "swarm.py", overwrite=True)
        room = Room(client, complete, swarm)
        started = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for place in range(count):
                mine = f"{trip} {name} {place}"  # in every prompt, so all ways write the same
                task: Any = inside if way == "inferlet" else outside
                nursery.start_soon(task, room if way == "inferlet" else room.talk(way, mine), mine)
        return time.perf_counter() - started
