"""Tables 3 and 4: what it costs that a program, not the engine, asks for tokens.

Guests that decode are held against bare batches on the very same worker, in turns; their tokens
count where the client reads them. What a period has beside the executor is told by where it goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean

import attrs
import trio

from benchmarks.paper.listener import listen
from benchmarks.paper.record import Run, rotated
from benchmarks.paper.served import GUESTS, Served, open_served
from pie_trio.client import open_client

SECTION = "table4"
SEQUENCES = (1, 32)
TOKENS = {1: 64, 32: 24}
PROMPT_ROWS = 16
PROMPT = "Once upon a time there was a small house at the end of a long road."
BURST_SHARE = 0.3  # tokens that come closer than this share of a step came together
SLACK_SECONDS = 0.03  # between an answer in the engine and its arrival at the client
Steps = Sequence[dict[str, float]]


@attrs.frozen
class Kind:
    """One way to decode: the program, and what it is told."""

    name: str
    source: Path
    arguments: tuple[str, ...]


KINDS = (
    Kind("fused C", GUESTS / "fused.c", ("--prompt", PROMPT)),
    Kind("fused Python", GUESTS / "fused.py", ("--prompt", PROMPT)),
    Kind("by passes C", GUESTS.parents[1] / "decode.c", ("--prompt", str(PROMPT_ROWS))),
    Kind("by passes Python", GUESTS.parents[1] / "decode.py", ("--prompt", str(PROMPT_ROWS))),
)


def measure(run: Run) -> None:
    """Bare before and after each kind, in every round, for one sequence and for many."""
    sequences = SEQUENCES[:1] if run.sizes.scale < 0.1 else SEQUENCES
    with open_served(run.model) as served:
        programs = trio.run(_install, served)
        for turn in range(1, run.sizes.rounds + 1):
            run.say(f"table 4: round {turn} of {run.sizes.rounds}")
            for count in sequences:
                _round(run, served, programs, count, turn)


def _round(run: Run, served: Served, programs: dict[str, str], count: int, turn: int) -> None:
    tokens = run.sizes.of(TOKENS[count], least=24)
    before = _bare(served, count, tokens)
    for kind in rotated(KINDS, turn):
        measures = _guests(served, programs[kind.name], kind, count, tokens)
        after = _bare(served, count, tokens)
        run.note(SECTION, f"{kind.name} {count}", turn, before=before, after=after, **measures)
        before = after


def _bare(served: Served, count: int, tokens: int) -> float:
    """The executor's seconds a step with nobody around it."""
    found = served.ask("bare", sequences=count, steps=tokens, prompt=PROMPT_ROWS)
    seconds: list[float] = found["inside"]
    return mean(seconds)


def _guests(served: Served, program: str, kind: Kind, count: int, tokens: int) -> dict[str, float]:
    served.steps()
    arguments = (*kind.arguments, "--tokens", str(tokens))
    arrivals = listen(served.address, program, arguments, count)
    steps = whole_steps(served.steps(), count)
    first, last = steps[0], steps[-1]
    made = sum(step["rows"] for step in steps[1:])
    inside = mean(step["seconds"] for step in steps[1:])
    link = mean(step["answered"] - step["asked"] - step["seconds"] for step in steps[1:])
    span = (last["answered"] - first["answered"]) / (len(steps) - 1)
    begin, end = first["answered"], last["answered"]
    periods = [period_of(each, tokens, begin, end, inside) for each in arrivals]
    period = mean(each for each in periods if each is not None)
    return {
        "period": period,
        "inside": inside,
        "link": link,
        "between": span - inside - link,
        "cpu": (last["cpu"] - first["cpu"]) / made,
    }


def whole_steps(steps: Steps, count: int) -> Steps:
    """From the first to the last in which everybody decodes."""
    whole = [n for n, step in enumerate(steps) if step["rows"] == step["passes"] == count]
    assert len(whole) > 2, f"{count} guests decode in some batches: {len(whole)} of {len(steps)}"
    return steps[whole[0] : whole[-1] + 1]


def period_of(
    arrivals: Sequence[float], tokens: int, begin: float, end: float, step: float
) -> float | None:
    """Seconds a token at the client, between two moments at which a bunch of them was complete;
    None if there are no two."""
    inside = [time for time in arrivals if begin <= time <= end + SLACK_SECONDS]
    gaps = [later - sooner for sooner, later in pairwise(inside)]
    first = next((place for place, gap in enumerate(gaps) if gap >= BURST_SHARE * step), None)
    if first is None:
        return None
    events = len(inside) - 1 - first
    return (inside[-1] - inside[first]) / (events * max(1.0, tokens / len(arrivals)))


async def _install(served: Served) -> dict[str, str]:
    names = {}
    async with open_client(served.address) as client:
        for kind in KINDS:
            is_c = kind.source.suffix == ".c"
            path = served.built(kind.source) if is_c else kind.source
            names[kind.name] = await client.install_file(path, overwrite=True)
            warm = await client.launch(
                names[kind.name], arguments=(*kind.arguments, "--tokens", "4")
            )
            await warm.result()
    return names
