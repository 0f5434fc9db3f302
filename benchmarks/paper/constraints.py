"""What a constraint costs a step: the same program with and without one, in turns on one worker.

Neither the paper nor its figures tell this; ours computes masks beside the forward pass, so a step
should take hardly longer. A sequence without a constraint may be decoded for several steps at once,
so what the controller adds is told apart from what the executor takes.
"""

from __future__ import annotations

from functools import partial

import trio

from benchmarks.paper.record import Run, rotated
from benchmarks.paper.served import GUESTS, Served, open_served
from benchmarks.paper.tax import steps_of, whole_batches
from pie_trio.client import open_client

SECTION = "constraint"
FREE = "free"
KINDS = (FREE, "regex", "schema", "lark")
SEQUENCES = (1, 8)
TOKENS = {1: 64, 8: 48}


def measure(run: Run) -> None:
    with open_served(run.model) as served:
        for kind in KINDS:
            trio.run(_decode, served, kind, 1, 4)
        for turn in range(1, run.sizes.rounds + 1):
            run.say(f"{SECTION}: round {turn} of {run.sizes.rounds}")
            for count in SEQUENCES:
                for kind in rotated(KINDS, turn):
                    tokens = run.sizes.of(TOKENS[count], least=16)
                    run.note(SECTION, f"{kind} {count}", turn, **_step(served, kind, count, tokens))


def _step(served: Served, kind: str, count: int, tokens: int) -> dict[str, float]:
    """Seconds of the executor, and from answer to answer."""
    served.steps()
    trio.run(_decode, served, kind, count, tokens)
    batches = whole_batches(served.steps(), count)
    later = batches[1:]
    steps = sum(steps_of(each) for each in later)
    return {
        "inside": sum(each["seconds"] for each in later) / steps,
        "step": (batches[-1]["answered"] - batches[0]["answered"]) / steps,
    }


async def _decode(served: Served, kind: str, count: int, tokens: int) -> None:
    async with open_client(served.address) as client:
        program = await client.install_file(GUESTS / "constrained.py", overwrite=True)
        launch = partial(client.launch, arguments=("--kind", kind, "--tokens", str(tokens)))
        instances = [await launch(program) for _ in range(count)]
        for instance in instances:
            await instance.result()
