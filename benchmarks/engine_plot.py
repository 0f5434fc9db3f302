"""The record of a run as one picture: each engine's bar beside the limit of the machine.

It draws to a file only and needs no screen.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bars.engine import BARE, INT8, MACHINE, SERVED, bounds, by_turn, waits
from benchmarks.engine_report import engines_of

Record = dict[str, Any]
PANELS = (
    ("decode 1", "One sequence: tokens written per second"),
    ("decode 8", "8 sequences: tokens written per second"),
    ("decode 32", "32 sequences: tokens written per second"),
    ("decode 64", "64 sequences: tokens written per second"),
    ("prefill 512", "Reading a prompt of 512: tokens per second"),
)
OURS, THEIRS, LIMIT = "#2a6f97", "#b8b8b8", "#c1121f"
SERVED_CASE = "32 c guests"


def plot(record: Record, path: Path) -> None:
    """Raises `ImportError` where matplotlib is missing: the extra `bench` brings it."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 3, figsize=(17, 9), layout="constrained")
    for axis, (case, title) in zip(axes.flat, PANELS, strict=False):
        _rates(axis, record, case, title)
    _first_tokens(axes.flat[-1], record)
    figure.suptitle(
        f"{record['model']} on {record['threads']} CPU threads, one run. Blue: pie-trio. "
        "Whiskers: 95 % bounds. Red: what the machine's memory or fp32 arithmetic allows.",
        fontsize=13,
    )
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _rates(axis: Any, record: Record, case: str, title: str) -> None:
    rows = [(name, list(by_turn(record, name, case).values())) for name in engines_of(record)]
    if case == "decode 32":
        rows.insert(0, (SERVED, list(by_turn(record, SERVED, SERVED_CASE).values())))
    rows = [(name, values) for name, values in rows if values]
    for place, (name, values) in enumerate(rows):
        middle, (low, high) = median(values), bounds(values)
        axis.barh(place, middle, color=_colour(name), xerr=[[middle - low], [high - middle]])
        axis.text(high, place, f" {middle:.0f}", va="center")
    limit = limit_of(record, case)
    if limit:
        axis.axvline(limit, color=LIMIT, linestyle="--")
    _dress(axis, title, [name for name, _ in rows])


def limit_of(record: Record, case: str) -> float | None:
    """For bf16 weights and fp32 arithmetic: read once a step, or multiplied once a token."""
    kind, count = case.split()
    sizes = record["sizes"]
    weights = float(sizes["weights"])
    measure = "operations" if kind == "prefill" or int(count) > 1 else "read_bytes"
    samples = by_turn(record, MACHINE, measure).values()
    if not samples:
        return None
    if measure == "read_bytes":
        return median(samples) / (2 * weights)
    if kind == "prefill":
        return median(samples) / (2 * float(sizes["layer_weights"]))
    read = median(by_turn(record, MACHINE, "read_bytes").values())
    return min(median(samples), int(count) * read) / (2 * weights)


def _first_tokens(axis: Any, record: Record) -> None:
    rows = [(name, sorted(waits(record, name)[0])) for name in engines_of(record)]
    rows = [(name, values) for name, values in rows if values]
    for place, (name, values) in enumerate(rows):
        middle, worst = median(values) * 1e3, values[-1] * 1e3
        axis.barh(place, middle, color=_colour(name))
        axis.plot([middle, worst], [place, place], color="black", linewidth=1)
        axis.text(worst, place, f" {middle:.0f} to {worst:.0f}", va="center")
    title = "Requests by chance: ms to first token, median to worst; less is better"
    _dress(axis, title, [name for name, _ in rows])


def _dress(axis: Any, title: str, names: list[str]) -> None:
    axis.set_title(title, fontsize=10)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.margins(x=0.15)
    axis.spines[["top", "right"]].set_visible(False)


def _colour(name: str) -> str:
    return OURS if name in (BARE, INT8, SERVED) else THEIRS
