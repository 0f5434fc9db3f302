"""The figures of `benchmarks.overhead` as tables, beside what was published for the original.

The published numbers come from other machines and another stack: they tell the order of magnitude
that users have been promised, not who is faster.
"""

from __future__ import annotations

from collections.abc import Sequence

Record = dict[str, str | int | float]

PUBLISHED_LAUNCH = {"warm": "10 to 50 ms", "cold": "35 to 81 ms"}
PUBLISHED_CALLS = "control layer < 30 us at 896 inferlets; inference layer 10 to 300 us"


def render(records: Sequence[Record]) -> str:
    lines = ["", "Launch of text-completion, ms (published: 1 to 896 at once)", ""]
    columns = ("at_once", "ack_median_ms", "ack_max_ms", "first_token_median_ms", "ended_max_ms")
    for kind in ("cold", "warm"):
        chosen = [record for record in records if record.get("launch") == kind]
        lines += [f"{kind}, published ack {PUBLISHED_LAUNCH[kind]}", *_table(columns, chosen), ""]
    calls = [record for record in records if "host_call" in record]
    lines += [f"Host call, CPU us (published: {PUBLISHED_CALLS})", ""]
    lines += [*_table(("host_call", "cpu_us"), calls), ""]
    tokens = [record for record in records if "guests" in record]
    lines += ["Control plane for one token, pretend worker with steps of 0 s", ""]
    lines += [*_table(("guests", "cpu_us_per_token", "wall_us_per_token"), tokens), ""]
    return "\n".join(lines)


def _table(columns: Sequence[str], records: Sequence[Record]) -> list[str]:
    rows = [columns, *([str(record[column]) for column in columns] for record in records)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(columns))]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
