"""The figures as PNG files, each with a title that says what is better.

Blue is ours, grey the same application at its client, red what the paper's figure shows. It needs
matplotlib, which the extra `bench` brings.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bars.paper import bare_seconds, bounds, by_round, joined
from benchmarks.paper import published
from benchmarks.paper.samples import cases_of

OURS, THEIRS, PAPER = "#2a6f97", "#b8b8b8", "#c1121f"
Record = dict[str, Any]
Bars = list[tuple[str, list[float], str]]  # label, samples, colour


def plot(record: Record, folder: Path) -> None:
    """Raises `ImportError` where matplotlib is missing. What was not measured is not drawn."""
    folder.mkdir(parents=True, exist_ok=True)
    ratio = "the same application at its client, every turn prefilled anew"
    _draw(
        folder / "fig6.png",
        f"Agents, 40 ms away: latency to that of {ratio}; less is better.",
        agents_of(record),
    )
    _draw(
        folder / "fig7.png",
        "Function-calling agent: agents per second; more is better.",
        _stacked(record),
    )
    _draw(
        folder / "fig8.png",
        f"Techniques: latency to that of {ratio}; less is better.",
        _techniques(record),
    )
    _draw(
        folder / "table4.png",
        "Tax of programmability: % of a bare step; less is better.",
        _taxes(record),
    )
    _draw(
        folder / "table5.png",
        "Batching policies, fitted model: requests per second.",
        _policies(record),
    )
    for section, title in (
        ("fig9", "Launches at once: ms to the server's answer"),
        ("fig10", "Calls by guests at once: us to the answer"),
    ):
        _lines(record, folder / f"{section}.png", section, f"{title}; less is better.")


def agents_of(record: Record) -> Bars:
    rows: Bars = []
    for agent, theirs in published.AGENT_LATENCY.items():
        section = f"fig6-{agent}"
        anew = by_round(record, section, "anew 40 ms", "latency")
        for way, colour in (("inferlet", OURS), ("cached", THEIRS)):
            found = by_round(record, section, f"{way} 40 ms", "latency")
            ratios = joined(lambda a, b: a / b, found, anew)
            label = "client with prefix cache" if way == "cached" else "inferlet"
            rows.append((f"{agent}, {label}", ratios, colour))
        rows.append((f"{agent}, paper (to vLLM)", [theirs[2]] if anew else [], PAPER))
    return rows


def _stacked(record: Record) -> Bars:
    return [
        (
            case,
            list(by_round(record, "fig7", case, "rate").values()),
            THEIRS if case in ("anew", "cached") else OURS,
        )
        for case in (
            "anew",
            "cached",
            "inferlet",
            "documents kept",
            "and calls beside",
            "all three",
        )
    ]


def _techniques(record: Record) -> Bars:
    rows: Bars = []
    for name, theirs in published.TECHNIQUE_LATENCY.items():
        anew = by_round(record, "fig8", f"{name} anew", "latency")
        found = by_round(record, "fig8", f"{name} inferlet", "latency")
        rows.append((name, joined(lambda a, b: a / b, found, anew), OURS))
        rows.append(("paper (to vLLM)", [theirs] if anew and theirs else [], PAPER))
    return rows


def _taxes(record: Record) -> Bars:
    rows: Bars = []
    for case in cases_of(record, "table4", "period"):
        bare = bare_seconds(record, case)
        period = by_round(record, "table4", case, "period")
        rows.append((case, joined(lambda a, b: 100 * (a / b - 1), period, bare), OURS))
    paper = [(f"paper, {size}", [100 * share], PAPER) for size, share in published.TAX.items()]
    return [*rows, *paper] if rows else []


def _policies(record: Record) -> Bars:
    return [
        (
            case.removeprefix("model "),
            list(by_round(record, "table5", case, "rate").values()),
            OURS if "work" in case else THEIRS,
        )
        for case in cases_of(record, "table5", "rate")
        if case.startswith("model ")
    ]


def _draw(path: Path, title: str, rows: Bars) -> None:
    from matplotlib.figure import Figure

    shown = [row for row in rows if row[1]]
    if not shown:
        return
    figure = Figure(figsize=(11, 1.2 + 0.36 * len(shown)), layout="constrained")
    axis = figure.subplots()
    for place, (_, values, colour) in enumerate(shown):
        value, (low, high) = median(values), bounds(values)
        axis.barh(place, value, color=colour, xerr=[[value - low], [high - value]])
        axis.text(max(high, value), place, f" {value:.3g}", va="center")
    axis.set_yticks(range(len(shown)), [label for label, _, _ in shown])
    axis.invert_yaxis()
    axis.margins(x=0.12)
    axis.set_title(title, fontsize=11)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def _lines(record: Record, path: Path, section: str, title: str) -> None:
    from matplotlib.figure import Figure

    curves: dict[str, list[tuple[int, float]]] = {}
    unit = 1e3 if section == "fig9" else 1e6
    for case in cases_of(record, section, "median"):
        kind, count = case.split()
        value = median(by_round(record, section, case, "median").values()) * unit
        curves.setdefault(kind, []).append((int(count), value))
    if not curves:
        return
    figure = Figure(figsize=(9, 5), layout="constrained")
    axis = figure.subplots()
    theirs = published.LAUNCH_MS if section == "fig9" else published.CALL_US
    for kind, points in curves.items():
        axis.plot(*zip(*points, strict=True), marker="o", label=kind)
        ends = zip((1, 896), theirs[kind], strict=True)
        shown = [(count, value) for count, value in ends if value is not None]
        axis.scatter(*zip(*shown, strict=True), marker="x", color=PAPER)
        axis.annotate(f"paper, {kind}", shown[-1], color=PAPER, ha="right", va="bottom")
    counts = sorted({count for points in curves.values() for count, _ in points})
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(counts, [str(count) for count in counts])
    axis.set_xlabel("at once")
    axis.set_title(title, fontsize=11)
    axis.legend()
    figure.savefig(path, dpi=110)
