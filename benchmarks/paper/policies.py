"""Table 5: when a batch leaves. What a batch costs is fitted on the real worker, in the same run.

A pretend worker that sleeps for so long is saturated by 128 instances; the real one by as many as
two cores take. Every policy gets a server of its own, and its best parameter of several. Nobody
ends while it is measured: with fewer than k instances left, k-only would never send a batch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise

import attrs
import trio

from benchmarks.paper.record import Run
from benchmarks.paper.served import GUESTS, Served, open_served
from pie_trio.client import Client, open_client
from pie_trio.config import Batching, BatchTrigger, ModelSettings

SECTION = "table5"
INSTANCES, INSTANCES_REAL = 128, 32
FIT_SEQUENCES = (1, 2, 4, 8, 16, 32, 64, 128)
FIT_STEPS, PROMPT_ROWS = 4, 16
TOKENS_OF_A_REQUEST = 64
ENDLESS = 4000  # tokens: more than anybody gets to write
SETTLE_SECONDS, WINDOW_SECONDS, WINDOWS = 1.0, 1.0, 3


@attrs.frozen
class Policy:
    """A trigger and its parameter."""

    name: str
    batching: Batching


def policies(instances: int, is_quick: bool) -> tuple[Policy, ...]:
    sizes = (8,) if is_quick else (8, instances // 2, instances)
    times = (0.016,) if is_quick else (0.001, 0.004, 0.016)
    return (
        Policy("work-conserving", Batching()),
        Policy("eager", Batching(BatchTrigger.EAGER)),
        *(Policy(f"k-only k={k}", Batching(BatchTrigger.K_ONLY, k=k)) for k in sizes),
        *(
            Policy(f"t-only t={t * 1e3:g} ms", Batching(BatchTrigger.T_ONLY, t_seconds=t))
            for t in times
        ),
    )


def measure(run: Run) -> None:
    step, row = fit(run)
    run.facts["fit"] = {
        "step_seconds": step,
        "row_seconds": row,
        "most_against_eager": (step + row) / (step / INSTANCES + row),
    }
    pretend = ModelSettings(
        "pretend", pretend=True, pretend_step_seconds=step, pretend_row_seconds=row
    )
    for place, model, instances in (
        ("model", pretend, run.sizes.of(INSTANCES, least=8)),
        ("real", run.model, run.sizes.of(INSTANCES_REAL, least=8)),
    ):
        chosen = policies(instances, run.sizes.is_quick)
        for policy in chosen[:2] if run.sizes.is_quick and place == "real" else chosen:
            run.say(f"{SECTION}: {place}, {policy.name}, {instances} instances")
            windows = 1 if run.sizes.is_quick else WINDOWS
            for turn, rate in enumerate(_rates(model, policy, instances, windows), start=1):
                case = f"{place} {policy.name}"
                run.note(SECTION, case, turn, rate=rate / TOKENS_OF_A_REQUEST)


def fit(run: Run) -> tuple[float, float]:
    """What a batch costs, and each row of it, by least squares; both in seconds."""
    points: list[tuple[int, float]] = []
    with open_served(run.model) as served:
        served.ask("bare", sequences=8, steps=FIT_STEPS, prompt=PROMPT_ROWS)
        for count in FIT_SEQUENCES:
            found = served.ask("bare", sequences=count, steps=FIT_STEPS, prompt=PROMPT_ROWS)
            points += [(count, seconds) for seconds in found["inside"]]
    for turn, (count, seconds) in enumerate(points):
        run.note(SECTION, f"batch of {count}", turn, seconds=seconds)
    return line_through(points)


def line_through(points: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Start and slope; a batch never costs less than nothing."""
    count = len(points)
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    return max(mean_y - slope * mean_x, 0.0), max(slope, 0.0)


def _rates(model: ModelSettings, policy: Policy, instances: int, windows: int) -> list[float]:
    """Tokens per second in each window, all instances decoding by themselves."""
    with open_served(model, policy.batching) as served:
        return trio.run(_saturate, served, instances, windows)


async def _saturate(served: Served, instances: int, windows: int) -> list[float]:
    async with open_client(served.address) as client:
        program = await client.install_file(served.built(GUESTS / "fused.c"), overwrite=True)
        async with trio.open_nursery() as nursery:
            for _ in range(instances):
                nursery.start_soon(_launch, client, program)
        await trio.sleep(SETTLE_SECONDS)
        marks = []
        for _ in range(windows + 1):
            marks.append(time.perf_counter())
            await trio.sleep(WINDOW_SECONDS)
        steps = served.steps()
    return [_rate(steps, begin, end) for begin, end in pairwise(marks)]


async def _launch(client: Client, program: str) -> None:
    arguments = ("--prompt", "Hello", "--tokens", str(ENDLESS))
    await client.launch(program, arguments=arguments, capture=False)


def _rate(steps: Sequence[dict[str, float]], begin: float, end: float) -> float:
    """Tokens of all batches but the first of the window, by the time since that one."""
    inside = [step for step in steps if begin <= step["answered"] <= end]
    span = inside[-1]["answered"] - inside[0]["answered"]
    return sum(step["passes"] for step in inside[1:]) / span
