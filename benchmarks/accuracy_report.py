"""The record of `benchmarks.accuracy` as Markdown."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.bars.accuracy import agreements, perplexity

Record = dict[str, Any]


def render(record: Record) -> str:
    lines = [
        f"{len(record['tokens'])} tokens in parts of {record['part_tokens']}, against fp32 on the "
        "weights as the file means them.",
        "",
        "| | agreement | places | largest difference | mean | divergence | perplexity |",
        "|---|---:|---:|---:|---:|---:|---:|",
        f"| fp32 | | | | | | {perplexity(record['reference']['loss']):.3f} |",
    ]
    lines += [_row(record, name) for name in record["engines"]]
    lines += ["", "| bar | value | goal | holds |", "|---|---:|---:|---|"]
    for bar in record["bars"]:
        value = "missing" if bar["value"] is None else f"{bar['value']:.4f}"
        lines.append(f"| {bar['name']} | {value} | {bar['goal']} | {bar['holds']} |")
    return "\n".join(lines) + "\n"


def _row(record: Record, name: str) -> str:
    engine = record["engines"][name]
    if "error" in engine:
        return f"| {name} | missing: {engine['error']} | | | | | |"
    agreed = [value for value in agreements(record, name) if value is not None]
    start = f"| {name} | {statistics.fmean(agreed):.4f} | {len(agreed)}"
    apart = "| | | |"
    if "largest" in engine:
        apart = (
            f"| {max(engine['largest']):.3f} | {statistics.fmean(engine['mean']):.4f} "
            f"| {statistics.fmean(engine['divergence']):.2e} |"
        )
    return f"{start} {apart} {perplexity(engine['loss']):.3f} |"
