"""Tables 3 and 4: what it costs that a program, not the engine, asks for tokens.

Guests that decode are held against bare batches on the very same worker, in turns; their tokens
count where the client reads them. A batch of theirs may be several steps that the worker makes by
itself. What a period has beside the executor is told by where it goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean

import attrs
import trio

from benchmarks.listener import listen
from benchmarks.paper.record import Run, rotated
from benchmarks.paper.served import GUESTS, Served, open_served
from pie_trio.client import open_client

SECTION = "table4"
SEQUENCES = (1, 32)
TOKENS = {1: 256, 32: 64}  # of each, a few seconds: several chunks behind the first
FUSED_TURNS = {1: 4, 32: 3}  # in a round: where 1 % of the wall is the goal, one resolves nothing
PROMPT_ROWS = 16
PROMPT = "Once upon a time there was a small house at the end of a long road."
BURST_SHARE = 0.3  # tokens that come closer than this share of a step came together
SLACK_SECONDS = 0.03  # between an answer in the engine and its arrival at the client
Batches = Sequence[Mapping[str, float]]


@attrs.frozen
class Kind:
    """One way to decode: the program, and what it is told."""

    name: str
    source: Path
    arguments: tuple[str, ...]


FUSED = (
    Kind("fused C", GUESTS / "fused.c", ("--prompt", PROMPT)),
    Kind("fused Python", GUESTS / "fused.py", ("--prompt", PROMPT)),
)
BY_PASSES = (
    Kind("by passes C", GUESTS.parents[1] / "decode.c", ("--prompt", str(PROMPT_ROWS))),
    Kind("by passes Python", GUESTS.parents[1] / "decode.py", ("--prompt", str(PROMPT_ROWS))),
)


def measure(run: Run) -> None:
    """Bare before and after each kind, in every turn, for one sequence and for many."""
    sequences = SEQUENCES[:1] if run.sizes.scale < 0.1 else SEQUENCES
    with open_served(run.model) as served:
        programs = trio.run(_install, served)
        for turn in range(1, run.sizes.rounds + 1):
            run.say(f"table 4: round {turn} of {run.sizes.rounds}")
            for count in sequences:
                _turn(run, served, programs, BY_PASSES, count, turn)
                turns = 1 if run.sizes.is_quick else FUSED_TURNS[count]
                for part in range(1, turns + 1):
                    _turn(run, served, programs, FUSED, count, (turn - 1) * turns + part)


def _turn(
    run: Run,
    served: Served,
    programs: dict[str, str],
    kinds: Sequence[Kind],
    count: int,
    turn: int,
) -> None:
    tokens = run.sizes.of(TOKENS[count], least=32)
    before = _bare(served, count, tokens)
    for kind in rotated(kinds, turn):
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
    batches = whole_batches(served.steps(), count)
    first, later = batches[0], batches[1:]
    last = batches[-1]
    steps = sum(steps_of(each) for each in later)
    inside = sum(each["seconds"] for each in later) / steps
    asked = sum(each["answered"] - each["asked"] for each in later) / steps
    made = sum(each["passes"] for each in later)
    heard = [period_of(each, batches, BURST_SHARE * inside) for each in arrivals]
    return {
        "period": mean(each for each in heard if each is not None),
        "inside": inside,
        "link": asked - inside,
        "between": (last["answered"] - first["answered"]) / steps - asked,
        "cpu": (last["cpu"] - first["cpu"]) / made,
        "steps_a_batch": steps / len(later),
    }


def steps_of(batch: Mapping[str, float]) -> float:
    """A sequence that decodes reads one row, and gets one token each step."""
    return max(batch["passes"] / batch["rows"], 1.0)


def whole_batches(batches: Batches, count: int) -> Batches:
    """From the first to the last in which everybody decodes."""
    whole = [
        place
        for place, batch in enumerate(batches)
        if batch["rows"] == count and batch["passes"] % count == 0
    ]
    assert len(whole) > 1, f"{count} guests decode in some batches: {len(whole)} of {len(batches)}"
    return batches[whole[0] : whole[-1] + 1]


def period_of(arrivals: Sequence[float], batches: Batches, gap: float) -> float | None:
    """Seconds a token of one guest, between two moments at which its client had heard all that was
    made until then, which is when nothing more comes for a while; None if there are no two."""
    begin, end = batches[0]["answered"], batches[-1]["answered"] + SLACK_SECONDS
    inside = [time for time in arrivals if begin <= time <= end]
    quiet = [time for time, later in pairwise(inside) if later - time >= gap] + inside[-1:]
    if len(quiet) < 2:
        return None
    since, until = quiet[0], quiet[-1]
    made = sum(steps_of(each) for each in batches if since < each["answered"] <= until)
    return (until - since) / made


async def _install(served: Served) -> dict[str, str]:
    names = {}
    async with open_client(served.address) as client:
        for kind in (*FUSED, *BY_PASSES):
            is_c = kind.source.suffix == ".c"
            path = served.built(kind.source) if is_c else kind.source
            names[kind.name] = await client.install_file(path, overwrite=True)
            warm = await client.launch(
                names[kind.name], arguments=(*kind.arguments, "--tokens", "4")
            )
            await warm.result()
    return names
