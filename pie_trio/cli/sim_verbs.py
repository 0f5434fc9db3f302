"""`pie-trio sim`: the verbs of the simulation harness, and what they take.

Only these verbs reach `pie_trio.testing`, and only when one of them runs: the server and every
other verb never load it. Nothing here decides anything; each verb hands its options on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True, help="Simulate the whole product, with faults, from one seed."
)

SeedArgument = Annotated[int, typer.Argument(help="The seed of the run.", min=0)]
ScenarioOption = Annotated[
    str | None,
    typer.Option("--scenario", help="A scenario's name, or FILE.py with `async def scenario`."),
]
FaultsOption = Annotated[
    str | None,
    typer.Option("--faults", help="Kinds that may strike: worker,link,kill,net,... or none."),
]
SchedulerOption = Annotated[
    str | None, typer.Option("--scheduler", help="shuffle, walk or pct; otherwise the seed says.")
]
OnlyOption = Annotated[
    str | None, typer.Option("--only", help="Only the faults with these numbers: 2,5.")
]
DecisionsOption = Annotated[
    int | None,
    typer.Option(
        "--decisions", help="So many of the seed's decisions; then in plain order.", min=0
    ),
]
JsonOption = Annotated[
    Path | None, typer.Option("--json", help="Write what was measured, and the bars, here.")
]
ProcessesOption = Annotated[
    int, typer.Option("--processes", help="So many at the same time.", min=1)
]
SecondsOption = Annotated[
    float | None, typer.Option("--seconds", help="Begin nothing more after so much time.", min=0)
]


@app.command("run")
def run(
    arguments: Annotated[
        list[str] | None, typer.Argument(help="What the program of --inferlet gets, after `--`.")
    ] = None,
    seeds: Annotated[
        str, typer.Option("--seeds", help="From..to (without the last), or one.")
    ] = "0..100",
    scenario: ScenarioOption = None,
    faults: FaultsOption = None,
    scheduler: SchedulerOption = None,
    processes: ProcessesOption = 2,
    seconds: SecondsOption = None,
    coverage: Annotated[
        bool, typer.Option("--coverage", help="Measure which of our lines the seeds run.")
    ] = False,
    inferlet: Annotated[
        str | None, typer.Option("--inferlet", help="Try this program instead: a file or a folder.")
    ] = None,
    case: Annotated[
        str | None, typer.Option("--case", help="With --inferlet: only this one, told in full.")
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--explain", help="With --case: draw it into this file.")
    ] = None,
    rate_beside: Annotated[
        Path | None,
        typer.Option("--rate-beside", help="Measure the rate beside the simulator in this folder."),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Run many seeds, or try a program of yours under every fault.

    Example: pie-trio sim run --inferlet my.py -- --prompt hello
    """
    if inferlet is None:
        from pie_trio.cli.sim_seeds import SeedOptions
        from pie_trio.cli.sim_swarm import Beside, run_many

        _refuse("without --inferlet", {"--case": case, "--explain": page, "ARGS": arguments})
        options = SeedOptions(scenario, faults, scheduler)
        beside = Beside(coverage, rate_beside)
        run_many(seeds, options, processes, seconds, beside, json)
    else:
        from pie_trio.cli.sim_inferlet import try_inferlet

        _refuse(
            "with --inferlet",
            {
                "--scenario": scenario,
                "--faults": faults,
                "--scheduler": scheduler,
                "--coverage": coverage,
                "--rate-beside": rate_beside,
                "--seconds": seconds,
            },
        )
        if case is None:
            _refuse("without --case", {"--explain": page})
        try_inferlet(inferlet, arguments or (), case, page, json)


@app.command("replay", no_args_is_help=True)
def replay(
    seed: SeedArgument,
    scenario: ScenarioOption = None,
    faults: FaultsOption = None,
    scheduler: SchedulerOption = None,
    only: OnlyOption = None,
    decisions: DecisionsOption = None,
    until: Annotated[
        int | None, typer.Option("--until", help="Show only the first so many events.", min=1)
    ] = None,
    step: Annotated[bool, typer.Option("--step", help="Wait for Enter after each event.")] = False,
) -> None:
    """Run one seed again and show every event.

    Example: pie-trio sim replay 17 --until 40
    """
    from pie_trio.cli.sim_seeds import SeedOptions, show_one

    show_one(seed, SeedOptions(scenario, faults, scheduler, only, decisions), until, in_steps=step)


@app.command("minimise", no_args_is_help=True)
def minimise(
    seed: SeedArgument,
    scenario: ScenarioOption = None,
    faults: FaultsOption = None,
    scheduler: SchedulerOption = None,
    only: OnlyOption = None,
) -> None:
    """Find the fewest faults and decisions with which a seed still fails.

    Example: pie-trio sim minimise 17
    """
    from pie_trio.cli.sim_seeds import SeedOptions, minimise_one

    minimise_one(seed, SeedOptions(scenario, faults, scheduler, only))


@app.command("explain", no_args_is_help=True)
def explain(
    seed: SeedArgument,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The page; otherwise seed-SEED.html.")
    ] = None,
    scenario: ScenarioOption = None,
    faults: FaultsOption = None,
    scheduler: SchedulerOption = None,
    only: OnlyOption = None,
    decisions: DecisionsOption = None,
) -> None:
    """Draw a seed's run as a page of HTML: lanes, batches, pages, faults.

    Example: pie-trio sim explain 17 -o 17.html
    """
    from pie_trio.cli.sim_seeds import SeedOptions, explain_one

    options = SeedOptions(scenario, faults, scheduler, only, decisions)
    explain_one(seed, options, output or Path(f"seed-{seed}.html"))


@app.command("cancel-everywhere", no_args_is_help=True)
def cancel_everywhere(
    scenario: Annotated[
        str, typer.Option("--scenario", help="A scenario, FILE.py, or all reference ones: all.")
    ],
    victim: Annotated[
        str | None,
        typer.Option("--victim", help="With --handle: who, as a report names it; or instance 0."),
    ] = None,
    handle: Annotated[
        str | None, typer.Option("--handle", help="Only this run, as a report names it.")
    ] = None,
    beside: Annotated[
        bool, typer.Option("--beside-faults", help="All of it again beside each single fault.")
    ] = False,
    rotation: Annotated[
        int, typer.Option("--rotation", help="Where to begin, when there is not time for all.")
    ] = 0,
    seconds: SecondsOption = None,
    processes: ProcessesOption = 2,
    json: JsonOption = None,
) -> None:
    """Cancel instances, connections and clients at every place where they can be.

    Example: pie-trio sim cancel-everywhere --scenario decode
    """
    from pie_trio.cli.sim_cancel import CancelOptions, cancel_all, replay_one

    if handle is not None:
        replay_one(scenario, victim or "instance 0", handle)
    _refuse("without --handle", {"--victim": victim})
    cancel_all(scenario, CancelOptions(beside, rotation, seconds, processes), json)


@app.command("mutants")
def mutants(
    names: Annotated[
        list[str] | None, typer.Argument(help="Only these; all of them if none is named.")
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", help="At most so many each.", min=1)] = 100,
    seconds: Annotated[
        float,
        typer.Option(
            "--seconds", help="At most so long each, by seeds and again by cancellations.", min=1
        ),
    ] = 40.0,
    processes: ProcessesOption = 2,
    json: JsonOption = None,
) -> None:
    """Put known defects in, one at a time, and see whether the harness finds them.

    Example: pie-trio sim mutants --json mutants.json
    """
    from pie_trio.cli.sim_mutants import hunt

    hunt(names or (), seeds, seconds, processes, json)


def _refuse(why: str, given: Mapping[str, object]) -> None:
    """What would be passed over in silence."""
    from pie_trio.cli.exit_codes import Usage

    idle = [name for name, value in given.items() if value not in (None, False, [])]
    if idle:
        raise Usage(f"{idle[0]} says nothing {why}")
