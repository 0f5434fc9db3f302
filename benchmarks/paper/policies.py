"""Table 5: when a batch leaves. What a batch costs is fitted on the real worker, in the same run.

A pretend worker that sleeps for so long is saturated by 128 instances; the real one by as many as
two cores take. Every policy gets a server of its own, and its best parameter of several; on the
real worker in every round anew, since the machine is not always as fast. Nobody ends while it is
measured: with fewer than k instances left, k-only would never send a batch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

import attrs
import trio

from benchmarks.paper.record import Run, rotated
from benchmarks.paper.served import GUESTS, Served, open_served
from pie_trio.client import Client, open_client
from pie_trio.config import Batching, BatchTrigger, ModelSettings

SECTION = "table5"
INSTANCES, INSTANCES_REAL = 128, 32
FIT_SEQUENCES = (1, 2, 4, 8, 16, 32, 64, 128)
FIT_STEPS, PROMPT_ROWS = 4, 16
TOKENS_OF_A_REQUEST = 64
ENDLESS = 4000  # tokens: more than anybody gets to write
SETTLE_SECONDS, WINDOW_SECONDS = 1.0, 1.0
SHARES = (0.25, 0.5, 0.75, 1.0)  # of the instances: k
TIMES = (0.001, 0.004, 0.016, 0.064)  # t, in seconds


@attrs.frozen
class Policy:
    """A trigger and its parameter."""

    name: str
    batching: Batching


def policies(instances: int, is_quick: bool) -> tuple[Policy, ...]:
    """With k = 8 and t = 16 ms among them, which the paper's artifact has."""
    shares = [round(share * instances) for share in SHARES]
    sizes = (8,) if is_quick else sorted({8, *shares})
    times = (0.016,) if is_quick else TIMES
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
    saturated = run.sizes.of(INSTANCES, least=8)
    step, row, worst = fit(run)
    run.facts["fit"] = {
        "step_seconds": step,
        "row_seconds": row,
        "off_by_at_most": worst,
        "instances": saturated,
        "most_against_eager": (step + row) / (step / saturated + row),
    }
    pretend = ModelSettings(
        "pretend", pretend=True, pretend_step_seconds=step, pretend_row_seconds=row
    )
    for policy in policies(saturated, run.sizes.is_quick):
        rates = _rates(run, "model", pretend, policy, saturated, run.sizes.rounds)
        for turn, rate in enumerate(rates, start=1):
            run.note(SECTION, f"model {policy.name}", turn, rate=rate)
    real = run.sizes.of(INSTANCES_REAL, least=8)
    chosen = policies(real, run.sizes.is_quick)
    for turn in range(1, run.sizes.rounds + 1):
        for policy in chosen[:2] if run.sizes.is_quick else rotated(chosen, turn):
            [rate] = _rates(run, "real", run.model, policy, real, 1)
            run.note(SECTION, f"real {policy.name}", turn, rate=rate)


def fit(run: Run) -> tuple[float, float, float]:
    """What a batch costs, and each row of it, in seconds; and the largest share by which the line
    misses the median of a size."""
    points: list[tuple[int, float]] = []
    with open_served(run.model) as served:
        served.ask("bare", sequences=8, steps=FIT_STEPS, prompt=PROMPT_ROWS)
        for count in FIT_SEQUENCES:
            found = served.ask("bare", sequences=count, steps=FIT_STEPS, prompt=PROMPT_ROWS)
            points.append((count, median(found["inside"])))
            for turn, seconds in enumerate(found["inside"]):
                run.note(SECTION, f"batch of {count}", turn, seconds=seconds)
    step, row = line_through(points)
    return step, row, max(abs((step + row * count) / seconds - 1) for count, seconds in points)


def line_through(points: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Start and slope, by least squares of shares: a small batch counts as much as a large one. A
    batch never costs less than nothing."""
    weights = [1 / y**2 for _, y in points]
    total = sum(weights)
    mean_x = sum(w * x for w, (x, _) in zip(weights, points, strict=True)) / total
    mean_y = sum(w * y for w, (_, y) in zip(weights, points, strict=True)) / total
    spread = sum(w * (x - mean_x) ** 2 for w, (x, _) in zip(weights, points, strict=True))
    slope = sum(w * (x - mean_x) * (y - mean_y) for w, (x, y) in zip(weights, points, strict=True))
    slope /= spread
    return max(mean_y - slope * mean_x, 0.0), max(slope, 0.0)


def _rates(
    run: Run, place: str, model: ModelSettings, policy: Policy, instances: int, windows: int
) -> list[float]:
    """Requests per second in each window, all instances decoding by themselves."""
    run.say(f"{SECTION}: {place}, {policy.name}, {instances} instances")
    with open_served(model, policy.batching) as served:
        rates = trio.run(_saturate, served, instances, windows)
    return [rate / TOKENS_OF_A_REQUEST for rate in rates]


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
