"""One seed on the command line: again, made smaller, drawn.

Ends with success only if every rule held, whatever the verb. A run that fails is told with the
command that repeats it. Nothing here waits but for the runs themselves.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import attrs
import typer

from pie_trio.cli.exit_codes import ExitCode, Usage
from pie_trio.cli.output import Output
from pie_trio.cli.progress import open_steps
from pie_trio.cli.sim_bars import demand_room
from pie_trio.events import Event
from pie_trio.testing.explain import explanation
from pie_trio.testing.faults import Faults
from pie_trio.testing.minimise import minimise, rule_name
from pie_trio.testing.report import (
    event_line,
    failure_text,
    instance_names,
    replay_command,
    summary,
)
from pie_trio.testing.scenarios import load_scenario
from pie_trio.testing.scheduler import MODES, Mode
from pie_trio.testing.simulation import Outcome, Simulation
from pie_trio.testing.swarm import scenario_of


@attrs.frozen
class SeedOptions:
    """What decides a run beside its seed; `faults` are kinds, `only` numbers of drawn faults."""

    scenario: str | None = None
    faults: str | None = None
    scheduler: str | None = None
    only: str | None = None
    decisions: int | None = None

    @property
    def mode(self) -> Mode | None:
        if self.scheduler is not None and self.scheduler not in MODES:
            raise Usage(f"--scheduler: there are {', '.join(MODES)}, not {self.scheduler!r}")
        return self.scheduler

    @property
    def kinds(self) -> Faults:
        return Faults.parse(self.faults or "all")

    def run(self, seed: int) -> Outcome:
        """The one run that these options name."""
        only = self._only(seed)
        scenario = self.scenario or scenario_of(seed)
        whole = Simulation(seed, self.kinds, scenario, self.mode, only)
        if self.decisions is None:
            return whole.run()
        picks = whole.run().picks[: self.decisions]
        return Simulation(seed, self.kinds, scenario, self.mode, only, picks).run()

    def _only(self, seed: int) -> list[int] | None:
        if self.only is None:
            return None
        chosen = _numbers(self.only)
        drawn = {fault.number for fault in self.kinds.draw(seed)}
        unknown = sorted(set(chosen) - drawn)
        if unknown:
            known = ", ".join(map(str, sorted(drawn))) or "none"
            raise Usage(f"--only: seed {seed} draws no fault {unknown[0]}; it draws {known}")
        return chosen

    def command(self, outcome: Outcome) -> str:
        words = replay_command(outcome, self.scenario or outcome.scenario, self.faults)
        only = f" --only {self.only}" if self.only is not None else ""
        decisions = "" if self.decisions is None else f" --decisions {self.decisions}"
        return words + only + decisions


def show_one(seed: int, options: SeedOptions, until: int | None, *, in_steps: bool) -> None:
    output = Output.of_process()
    outcome = options.run(seed)
    events = outcome.timeline[:until]
    names = instance_names(outcome.timeline)
    for number, event in enumerate(events, start=1):
        output.line(f"{number:5d} {event_line(event, names)}")
        if in_steps and number < len(events) and not sys.stdin.readline():
            in_steps = False
    if len(events) < len(outcome.timeline):
        output.say(f"{len(outcome.timeline) - len(events)} more events are not shown")
    _end(outcome, options.command(outcome), output)


def minimise_one(seed: int, options: SeedOptions) -> None:
    output = Output.of_process()
    outcome = options.run(seed)
    if not outcome.violations:
        output.say(f"seed {seed} holds: there is nothing to make smaller")
        raise typer.Exit(ExitCode.OK)
    with open_steps(output) as steps:
        steps.say(f"seed {seed} breaks: {rule_name(outcome.violations[0])}; making it smaller")
        least = minimise(outcome, load_scenario(options.scenario or outcome.scenario))
    kept = ",".join(str(fault.number) for fault in least.faults) or "none"
    decisions = len(least.picks) - _zeros_at_end(least.picks)
    smaller = attrs.evolve(options, only=kept, decisions=decisions)
    before = f"{len(outcome.faults)} faults and {len(outcome.picks)} decisions"
    output.line(f"{before} became {len(least.faults)} and {decisions}")
    _end(least, smaller.command(least), output)


def explain_one(seed: int, options: SeedOptions, path: Path) -> None:
    output = Output.of_process()
    demand_room(path)
    outcome = options.run(seed)
    write_page(path, f"seed {seed}, scenario {outcome.scenario}", outcome, options.command(outcome))
    output.say(f"{len(outcome.timeline)} events in {path}")
    raise typer.Exit(ExitCode.CHECK_FAILED if outcome.violations else ExitCode.OK)


def write_page(path: Path, title: str, outcome: Outcome, command: str) -> None:
    facts = [*summary(outcome), ("replay", command)]
    events: Sequence[Event] = outcome.timeline
    try:
        path.write_text(explanation(title, facts, events), "utf-8")
    except OSError as error:
        raise Usage(f"{path} cannot be written: {error}") from error


def _end(outcome: Outcome, command: str, output: Output) -> None:
    if outcome.violations:
        output.line(failure_text(outcome, command))
        raise typer.Exit(ExitCode.CHECK_FAILED)
    output.say(f"every rule held in {outcome.steps} steps; again: {command}")
    raise typer.Exit(ExitCode.OK)


def _numbers(text: str) -> list[int]:
    if text == "none":
        return []
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise Usage(f"--only: {text!r} is no list of numbers such as 2,5") from None


def _zeros_at_end(picks: Sequence[int]) -> int:
    """Decisions that are the plain order anyway."""
    return next((n for n, pick in enumerate(reversed(picks)) if pick), len(picks))
