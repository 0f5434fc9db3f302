"""The figures as PNG files, each with a title that says what is better.

Blue is an inferlet, grey the same application at its client, red what the paper's figure shows;
other engines have colours of their own. It needs matplotlib, which the extra `bench` brings.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bars.paper import bare_seconds, bounds, by_round, joined
from benchmarks.paper import published
from benchmarks.paper.samples import cases_of

TITLE_CHARACTERS = 110  # of a line
OURS, THEIRS, PAPER, LIMIT = "#2a6f97", "#b8b8b8", "#c1121f", "black"
WAYS = {  # of figure 8: what the legend says, and the colour
    "inferlet": ("inferlet", OURS),
    "anew": ("client, every request prefilled anew", "#d0d0d0"),
    "cached": ("client, prefix cache", "#909090"),
    "llama.cpp": ("client, llama.cpp's server", "#e9a23b"),
    "OpenVINO": ("client, OpenVINO behind a server", "#6a994e"),
}
Record = dict[str, Any]
Bars = list[tuple[str, list[float], str]]  # label, samples, colour


def plot(record: Record, folder: Path) -> None:
    """Raises `ImportError` where matplotlib is missing. What was not measured is not drawn."""
    folder.mkdir(parents=True, exist_ok=True)
    ratio = "the same application at its client, every turn prefilled anew"
    _draw(
        folder / "fig6.png",
        f"Agents, 40 ms away: latency to that of {ratio} (1.0); less is better.",
        agents_of(record),
        reference=1.0,
    )
    _draw(
        folder / "fig7.png",
        "Function-calling agent, optimisations one on top of the other: agents per second; more "
        "is better.",
        _stacked(record),
    )
    _techniques(record, folder / "fig8.png")
    _draw(
        folder / "table4.png",
        "Tax of programmability: a token at its client takes so many % longer than a bare step; "
        "less is better.",
        taxes_of(record),
    )
    _draw(
        folder / "table5.png",
        f"Batching policies, {_instances(record)} instances, a worker that takes as long as ours: "
        "requests per second; more is better.",
        _policies(record),
    )
    _draw(
        folder / "constraint.png",
        "A step under a constraint, from answer to answer: to the same without one (1.0); less is "
        "better.",
        _constraints(record),
        reference=1.0,
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
        for way, (label, colour) in WAYS.items():
            found = by_round(record, section, f"{way} 40 ms", "latency")
            if way != "anew":
                ratios = joined(lambda a, b: a / b, found, anew)
                rows.append((f"{agent}, {label}", ratios, colour))
        rows.append((f"{agent}, paper (inferlet to vLLM)", [theirs[2]] if anew else [], PAPER))
    return rows


def _stacked(record: Record) -> Bars:
    labels = {
        "anew": "client, every turn prefilled anew",
        "cached": "client, prefix cache",
        "inferlet": "inferlet",
        "documents kept": "+ documents kept for all",
        "and calls beside": "+ calls beside the writing",
        "all three": "+ documents dropped when used",
    }
    rows: Bars = [
        (
            label,
            list(by_round(record, "fig7", case, "rate").values()),
            THEIRS if case in ("anew", "cached") else OURS,
        )
        for case, label in labels.items()
    ]
    anew = list(by_round(record, "fig7", "anew", "rate").values())
    goal = [published.STACKED * median(anew)] if anew else []
    return [*rows, ("paper: 3.5 times the client", goal, PAPER)]


def _techniques(record: Record, path: Path) -> None:
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    shown: list[tuple[str, str, list[float]]] = []
    for name in published.TECHNIQUE_LATENCY:
        for way in WAYS:
            seconds = list(by_round(record, "fig8", f"{name} {way}", "latency").values())
            if seconds:
                shown.append((name, way, seconds))
    if not shown:
        return
    figure = Figure(figsize=(11, 1.6 + 0.27 * len(shown)), layout="constrained")
    axis = figure.subplots()
    names = list(dict.fromkeys(name for name, _, _ in shown))
    middles: dict[str, list[float]] = {}
    for place, (name, way, seconds) in enumerate(shown):
        height = place + 0.8 * names.index(name)  # room between techniques
        middles.setdefault(name, []).append(height)
        value, (low, high) = median(seconds), bounds(seconds)
        axis.barh(height, value, 0.95, color=WAYS[way][1], xerr=[[value - low], [high - value]])
        axis.text(max(high, value), height, f" {value:.2f}", va="center", fontsize=8)
    axis.set_yticks([sum(each) / len(each) for each in middles.values()], map(_beside, names))
    axis.invert_yaxis()
    axis.margins(x=0.1)
    axis.set_xlabel("seconds to the answer, 40 ms away; a bar is missing where it cannot be done")
    axis.set_title("Techniques: less is better", fontsize=11)
    used = dict.fromkeys(way for _, way, _ in shown)
    axis.legend(handles=[Patch(color=WAYS[way][1], label=WAYS[way][0]) for way in used])
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def _beside(name: str) -> str:
    theirs = published.TECHNIQUE_LATENCY[name]
    return name if theirs is None else f"{name}\npaper: {theirs:.2f} of vLLM's"


def _constraints(record: Record) -> Bars:
    rows: Bars = []
    for case in cases_of(record, "constraint", "step"):
        kind, count = case.split()
        free = by_round(record, "constraint", f"free {count}", "step")
        mine = by_round(record, "constraint", case, "step")
        if kind != "free":
            rows.append((f"{kind}, {count} at once", joined(lambda a, b: a / b, mine, free), OURS))
    return rows


def _instances(record: Record) -> int:
    return round(record["facts"].get("fit", {}).get("instances", 0))


def taxes_of(record: Record) -> Bars:
    rows: Bars = []
    for case in sorted(cases_of(record, "table4", "period"), key=_by_size):
        bare = bare_seconds(record, case)
        period = by_round(record, "table4", case, "period")
        rows.append((case, joined(lambda a, b: 100 * (a / b - 1), period, bare), OURS))
    paper = [(f"paper, {size}", [100 * share], PAPER) for size, share in published.TAX.items()]
    return [*rows, *paper] if rows else []


def _by_size(case: str) -> tuple[int, str]:
    kind, _, size = case.rpartition(" ")
    return int(size), kind


def _policies(record: Record) -> Bars:
    rows: Bars = [
        (
            case.removeprefix("model "),
            list(by_round(record, "table5", case, "rate").values()),
            OURS if "work" in case else THEIRS,
        )
        for case in cases_of(record, "table5", "rate")
        if case.startswith("model ")
    ]
    fit, eager = record["facts"].get("fit"), by_round(record, "table5", "model eager", "rate")
    if fit is not None and eager:
        most = fit["most_against_eager"] * median(eager.values())
        rows.append(("the most that is possible", [most], LIMIT))
    return rows


def _draw(path: Path, title: str, rows: Bars, reference: float | None = None) -> None:
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
    if reference is not None:
        axis.axvline(reference, color="black", linewidth=1, linestyle=":")
    axis.set_yticks(range(len(shown)), [label for label, _, _ in shown])
    axis.invert_yaxis()
    axis.margins(x=0.12)
    figure.suptitle(textwrap.fill(title, TITLE_CHARACTERS), fontsize=11)
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
        [line] = axis.plot(*zip(*points, strict=True), marker="o", label=f"{kind}, here")
        ends = zip((1, 896), theirs[kind], strict=True)
        shown = [(count, value) for count, value in ends if value is not None]
        axis.plot(
            *zip(*shown, strict=True),
            "x:",
            color=line.get_color(),
            label=f"{kind}, paper (its machine)",
        )
    counts = sorted({count for points in curves.values() for count, _ in points})
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(counts, [str(count) for count in counts])
    axis.set_xlabel("at once")
    axis.set_ylabel("ms" if section == "fig9" else "us")
    axis.grid(visible=True, which="major", color="#e0e0e0")
    axis.set_title(title, fontsize=11)
    axis.legend()
    figure.savefig(path, dpi=110)
