"""The record of a run as Markdown: one table a question, missing rows told with their reason."""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.bars.engine import (
    MACHINE,
    bandwidth_shares,
    bounds,
    by_turn,
    operation_shares,
    quantile,
    waits,
)
from benchmarks.tables import table

NOTHING = "-"
CASES = ("decode 1", "decode 8", "decode 32", "decode 64", "prefill 512", "prefill 2048")
Record = dict[str, Any]


def render(record: Record) -> str:
    parts = [
        _rates(record),
        _served(record),
        _shares(record),
        _waits(record),
        _starts(record),
        _strangers(record),
        _configurations(record),
        _bars(record),
    ]
    return "\n".join(part for part in parts if part)


def engines_of(record: Record) -> list[str]:
    return [name for name in record["engines"] if name != MACHINE]


def _rates(record: Record) -> str:
    rows = [
        [name, *(_middle(list(by_turn(record, name, case).values())) for case in CASES)]
        for name in engines_of(record)
        if any(by_turn(record, name, case) for case in CASES)
    ]
    title = f"Tokens per second, {record['threads']} threads: median [95 % bounds]"
    return table(title, ["engine", *CASES], rows)


def _served(record: Record) -> str:
    cases = {
        "the bare engine on the same batches": ("pie-trio", "as 32 guests"),
        "in C, a pass a token": ("pie-trio served", "32 c guests"),
        "in Python, a pass a token": ("pie-trio served", "32 python guests"),
    }
    rows = [
        [name, _middle(list(by_turn(record, engine, case).values()))]
        for name, (engine, case) in cases.items()
    ]
    return table("End to end: 32 guests, client over loopback", ["", "tokens/s"], rows)


def _shares(record: Record) -> str:
    read = by_turn(record, MACHINE, "read_bytes").values()
    operations = by_turn(record, MACHINE, "operations").values()
    if not read:
        return ""
    rows = []
    for name in engines_of(record):
        at_one = bandwidth_shares(record, name, "decode 1")
        filling = operation_shares(record, name, "prefill 512")
        if at_one:
            rows.append([name, _percent(at_one), _percent(filling), _agreement(record, name)])
    title = (
        f"The machine reads {median(read) / 1e9:.1f} GB/s and multiplies and adds "
        f"{median(operations) / 1e9:.0f} GFLOP/s in fp32; shares of it, and equal next tokens"
    )
    header = ["engine", "bandwidth, decode 1", "multiply-add, prefill 512", "agreement with ours"]
    return table(title, header, rows)


def _waits(record: Record) -> str:
    rows = []
    for name in record["arrivals"].get("times", {}):
        first, gaps = waits(record, name)
        if first and gaps:
            figures = [quantile(values, share) for values in (first, gaps) for share in (0.5, 0.99)]
            rows.append([name, *(f"{figure * 1e3:.0f}" for figure in figures)])
    count = len(record["arrivals"].get("at", []))
    header = ["engine", "first token p50 ms", "p99 ms", "per token p50 ms", "p99 ms"]
    return table(f"{count} requests that come by chance", header, rows)


def _starts(record: Record) -> str:
    rows = []
    for what in dict.fromkeys(start["what"] for start in record["starts"]):
        seconds = [start["seconds"] for start in record["starts"] if start["what"] == what]
        rows.append([what, " ".join(f"{value:.2f}" for value in seconds)])
    return table("A cold process until it can compute, seconds", ["start", "samples"], rows)


def _strangers(record: Record) -> str:
    rounds = record.get("strangers", [])
    if not rounds:
        return ""
    most = {what: max(each[what] for each in rounds) for what in ("others", "stolen")}
    return (
        f"Meanwhile strangers used up to {most['others']:.2f} cores in a round, "
        f"and the host took up to {most['stolen']:.2f}.\n"
    )


def _configurations(record: Record) -> str:
    lines = ["### Versions and configurations", ""]
    for name, facts in record["engines"].items():
        if "missing" in facts:
            lines.append(f"- {name}: MISSING, {facts['missing']}")
        elif facts.get("version"):
            configuration = json.dumps(facts["configuration"])
            lines.append(f"- {name}: {facts['engine']} {facts['version']}, {configuration}")
    lines += [
        f"- {each['engine']} skipped {each['case']}: {each['reason']}" for each in record["skipped"]
    ]
    return "\n".join(lines) + "\n"


def _bars(record: Record) -> str:
    rows = []
    for bar in record["bars"]:
        sign = "<=" if bar.get("at_most") else ">="
        value = "missing" if bar["value"] is None else f"{bar['value']:.3f}"
        reach = f"[{bar['low']:.3f}, {bar['high']:.3f}]" if "low" in bar else ""
        verdict = "yes" if bar["holds"] else "**no**"
        rows.append([bar["name"], value, reach, f"{sign} {bar['goal']}", verdict])
    return table("Bars", ["name", "median", "95 % bounds", "goal", "holds"], rows)


def _agreement(record: Record, name: str) -> str:
    found = record["agreement"].get(name)
    return f"{found['same']}/{found['asked']}" if found else NOTHING


def _middle(values: Sequence[float]) -> str:
    if not values:
        return NOTHING
    low, high = bounds(values)
    return f"{median(values):.0f} [{low:.0f}, {high:.0f}]"


def _percent(values: Sequence[float]) -> str:
    return f"{median(values):.0%}" if values else NOTHING
