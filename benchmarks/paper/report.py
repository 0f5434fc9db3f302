"""A record as Markdown: each table and figure of the paper beside what was measured here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.bars.paper import (
    POLICY_GOALS,
    bare_seconds,
    best_of,
    by_round,
    joined,
    noise,
)
from benchmarks.paper import published
from benchmarks.paper.samples import NOTHING, cases_of, middle, spread
from benchmarks.tables import table

EAGER_GOAL = POLICY_GOALS["eager"]
BASELINES = {
    "anew": "(a) anew",
    "cached": "(b) cached",
    "llama.cpp": "llama.cpp",
    "OpenVINO": "OpenVINO",
}
TOKENS_EXPLAINED = """
*Tokens*: of the inferlet / (a) / (b) / llama.cpp / OpenVINO. Of our engine all that it has drawn,
with guesses and every beam; of another one those of its answers.
"""
TAX_EXPLAINED = """
*Bare*: the executor's time for a step of so many sequences, on the very worker that serves the
guests, right before and after them. *Served*: a guest's time a token at its client, over WebSocket
through the gateway, between two moments at which it had heard all that was made. *Tax*: how much
longer that is than bare. *Controller CPU*: processor time of the whole control process (engine,
guests, gateway), for one token of one guest. *Noise*: how far bare before and bare after differ.
"""
Record = dict[str, Any]
Rows = list[list[str]]


def render(record: Record) -> str:
    parts = [
        _taxes(record),
        _opportunities(record),
        _agents(record),
        _stacked(record),
        _techniques(record),
        _constraints(record),
        _launches(record),
        _calls(record),
        _policies(record),
        _peers(record),
        _conditions(record),
        _bars(record),
    ]
    return "\n".join(part for part in parts if part)


def _taxes(record: Record) -> str:
    rows = []
    for case in cases_of(record, "table4", "period"):
        bare = bare_seconds(record, case)
        period = by_round(record, "table4", case, "period")
        cpu = joined(lambda a, b: a / b, by_round(record, "table4", case, "cpu"), bare)
        count = int(case.split()[-1])
        rows.append(
            [
                case,
                middle(by_round(record, "table4", case, "steps_a_batch").values(), digits=1),
                middle(bare.values(), 1e3),
                middle(period.values(), 1e3),
                spread(joined(lambda a, b: a / b - 1, period, bare), 100, 1),
                spread(cpu, 100, 2),
                spread([share * count for share in cpu], 100, 1),
                middle(noise(record, case), 100, 1),
            ]
        )
    header = [
        *("sequences decode", "steps a batch", "bare step, ms", "served, ms a token", "tax, %"),
        *("controller CPU a token, % of a step", "for all in a step", "bare noise, %"),
    ]
    paper = ", ".join(f"{size} {share:.1%}" for size, share in published.TAX.items())
    title = f"Table 4: the tax of programmability (the paper: {paper})"
    return table(title, header, rows) + (TAX_EXPLAINED if rows else "")


def _opportunities(record: Record) -> str:
    rows = []
    for case in cases_of(record, "table4", "link"):
        bare = bare_seconds(record, case)
        inside = by_round(record, "table4", case, "inside")
        slower = joined(lambda a, b: a - b, inside, bare)
        shares = [
            spread(list(by_round(record, "table4", case, name).values()), 1e3)
            for name in ("link", "between")
        ]
        rows.append([case, spread(slower, 1e3), *shares])
    header = ["ms a step", "executor slower", "to the worker and back", "between batches"]
    paper = ", ".join(f"{what} {ms:g}" for what, ms in published.OPPORTUNITY_MS.items())
    return table(f"Table 3: where it goes (the paper, in ms of 64: {paper})", header, rows)


def _agents(record: Record) -> str:
    rows = []
    for agent, theirs in published.AGENT_LATENCY.items():
        section = f"fig6-{agent}"
        for case in cases_of(record, section, "latency"):
            if not case.startswith("inferlet "):
                continue
            trip = case.removeprefix("inferlet ")
            ours = by_round(record, section, case, "latency")
            row = [f"{agent}, {trip}", middle(ours.values())]
            for way in BASELINES:
                other = by_round(record, section, f"{way} {trip}", "latency")
                row.append(spread(joined(lambda a, b: a / b, ours, other)))
            rows.append([*row, f"{theirs[2]:.2f}, {theirs[2] / theirs[1]:.2f}"])
        ours = by_round(record, section, "inferlet many", "rate")
        if ours:
            row = [f"{agent}, many at once: agents/s", middle(ours.values())]
            for way in BASELINES:
                other = by_round(record, section, f"{way} many", "rate")
                row.append(middle(joined(lambda a, b: a / b, ours, other)))
            rate = published.AGENT_RATE[agent]
            rows.append([*row, f"{1 / rate[0]:.2f}, {1 / rate[1]:.2f}"])
    header = ["agent, round trip", "s", *map(_to, BASELINES), "paper: to vLLM, to SGLang"]
    return table(
        "Figure 6: agents, latency of the inferlet to that of its client's loop", header, rows
    )


def _stacked(record: Record) -> str:
    anew = by_round(record, "fig7", "anew", "rate")
    rows = []
    for case in cases_of(record, "fig7", "rate"):
        rate = by_round(record, "fig7", case, "rate")
        ratio = spread(joined(lambda a, b: a / b, rate, anew))
        paper = f"{published.STACKED}" if case == "all three" else NOTHING
        rows.append([case, middle(rate.values(), digits=3), ratio, paper])
    rows.sort(key=lambda row: float(row[1]))
    header = ["", "agents/s", "to (a) anew", "paper"]
    return table("Figure 7: optimisations, one on top of the other", header, rows)


def _techniques(record: Record) -> str:
    rows = []
    for name, theirs in published.TECHNIQUE_LATENCY.items():
        ours = by_round(record, "fig8", f"{name} inferlet", "latency")
        if not ours:
            continue
        ratios, tokens = [], [_tokens(record, f"{name} inferlet")]
        for way in BASELINES:
            other = by_round(record, "fig8", f"{name} {way}", "latency")
            ratios.append(spread(joined(lambda a, b: a / b, ours, other)))
            tokens.append(_tokens(record, f"{name} {way}"))
        rates = [by_round(record, "fig8", f"{name} {way}", "rate") for way in ("inferlet", "anew")]
        paper = NOTHING if theirs is None else f"{theirs:.2f}"
        rate = middle(joined(lambda a, b: a / b, *rates))
        rows.append([name, middle(ours.values()), " / ".join(tokens), *ratios, rate, paper])
    ratios = [*map(_to, BASELINES), "throughput to (a)", "paper: to vLLM"]
    title = "Figure 8: techniques, latency of the inferlet to that of its client's requests"
    told = table(title, ["technique", "s", "tokens", *ratios], rows)
    return told + (TOKENS_EXPLAINED if rows else "") + _reasons(record, [row[0] for row in rows])


def _tokens(record: Record, case: str) -> str:
    return middle(by_round(record, "fig8", case, "tokens").values(), digits=0)


def _reasons(record: Record, names: Sequence[str]) -> str:
    """One line for each technique that some baseline does not have."""
    lines = []
    for name in names:
        whose: dict[str, list[str]] = {}
        for way, reason in record["facts"].get("reasons", {}).get(name, {}).items():
            whose.setdefault(reason, []).append(BASELINES[way])
        told = [f"{' and '.join(ways)}: {reason}" for reason, ways in whose.items()]
        lines += [f"- {name}: {'; '.join(told)}."] if told else []
    return "\n" + "\n".join(["No ratio, because of whom:", *lines]) + "\n" if lines else ""


def _peers(record: Record) -> str:
    """Which engines stood beside ours, or why not."""
    rows = [[name, what] for name, what in record["facts"].get("peers", {}).items()]
    return table("Other engines, each behind a server of its own", ["engine", "version"], rows)


def _to(way: str) -> str:
    return f"to {BASELINES[way]}"


def _constraints(record: Record) -> str:
    rows = []
    for case in cases_of(record, "constraint", "inside"):
        kind, count = case.split()
        if kind == "free":
            continue
        row = [f"{kind}, {count} at once"]
        for measure in ("inside", "step"):
            free = by_round(record, "constraint", f"free {count}", measure)
            mine = by_round(record, "constraint", case, measure)
            row += [
                middle(free.values(), 1e3),
                spread(joined(lambda a, b: a / b, mine, free), 1, 3),
            ]
        rows.append(row)
    header = ["constraint", "executor without, ms", "with, to without"]
    title = "What a constraint costs a step (not in the paper)"
    return table(title, [*header, "answer to answer without, ms", "with, to without"], rows)


def _launches(record: Record) -> str:
    rows = []
    for case in cases_of(record, "fig9", "median"):
        found = [by_round(record, "fig9", case, name).values() for name in ("median", "worst")]
        few, many = published.LAUNCH_MS[case.split()[0]]
        paper = f"{few:g} at 1, {many:g} at 896"
        rows.append([case, *(middle(each, 1e3, 1) for each in found), paper])
    return table("Figure 9: launches at once, ms", ["", "median", "worst", "paper"], rows)


def _calls(record: Record) -> str:
    rows = []
    for case in cases_of(record, "fig10", "median"):
        found = [by_round(record, "fig10", case, name).values() for name in ("median", "worst")]
        few, many = published.CALL_US[case.split()[0]]
        paper = f"below {many:g}" if few is None else f"{few:g} at 1, {many:g} at 896"
        rows.append([case, *(middle(each, 1e6, 0) for each in found), paper])
    header = ["layer, guests", "median", "slowest guest", "paper"]
    return table("Figures 10 and 11: a call, by guests that call at once, us", header, rows)


def _policies(record: Record) -> str:
    fit = record["facts"].get("fit")
    if fit is None:
        return ""
    rows = []
    for place in ("model", "real"):
        ours = by_round(record, "table5", f"{place} work-conserving", "rate")
        for case in cases_of(record, "table5", "rate"):
            if case.startswith(f"{place} "):
                rate = by_round(record, "table5", case, "rate")
                ratio = spread(joined(lambda a, b: a / b, ours, rate))
                policy = case.split()[1]
                is_best = rate == best_of(record, place, policy)
                paper = published.POLICIES["work-conserving"] / published.POLICIES[policy]
                told = f"{paper:.2f}" if is_best and place == "model" else NOTHING
                rows.append([case, middle(rate.values()), ratio, told])
    header = ["worker, policy", "requests/s", "work-conserving is x times as fast", "paper"]
    return table("Table 5: policies", header, rows) + _ceiling(fit)


def _ceiling(fit: Mapping[str, float]) -> str:
    """How far any policy could come, and why."""
    a, b, n = fit["step_seconds"], fit["row_seconds"], round(fit["instances"])
    told = (
        f"On the real worker a batch of n rows takes a + b n, a = {a * 1e3:.2f} ms and "
        f"b = {b * 1e3:.3f} ms (no size that was measured is missed by more than "
        f"{fit['off_by_at_most']:.0%}). Eager spends a + b on every token, a batch of all {n} "
        f"spends a / {n} + b: no policy is more than {fit['most_against_eager']:.1f} times as "
        f"fast as eager here."
    )
    if b and n > EAGER_GOAL:
        needed = (EAGER_GOAL - 1) / (1 - EAGER_GOAL / n)
        told += (
            f" {EAGER_GOAL:g} times needs a of at least {needed:.1f} b, and a is {a / b:.1f} b: "
            f"where a CPU multiplies, every row takes its time; where a GPU reads weights, rows "
            f"are nearly free."
        )
    return f"\n{told}\n"


def _conditions(record: Record) -> str:
    rows = [
        [section, run["began"], str(run["rounds"]), str(run["seconds"]), f"{run['load']:.1f}"]
        for section, run in record["runs"].items()
    ]
    return table("When", ["section", "began (UTC)", "rounds", "took, s", "load then"], rows)


def _bars(record: Record) -> str:
    rows = []
    for bar in record["bars"]:
        sign = "<=" if bar.get("at_most") else ">="
        value = "" if bar["value"] is None else f"{bar['value']:.3f}"
        reach = f"{bar['low']:.3f} to {bar['high']:.3f}" if "low" in bar else ""
        most = f" (at most {bar['ceiling']:.1f} here)" if "ceiling" in bar else ""
        goal = f"{sign} {bar['goal']}{most}"
        rows.append([bar["name"], value, reach, goal, bar["verdict"]])
    return table("Bars", ["name", "median", "95 % bounds", "goal", "verdict"], rows)
