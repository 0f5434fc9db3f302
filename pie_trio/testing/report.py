"""What a person is told of a simulated run: one block of text, and the command that repeats it.

Pure but for `source_digest`, which reads our own sources. A failure is told in a few lines: seed,
versions, faults, scheduler, the broken rule, the events that led to it, and how to see it again.
Instances are numbered in the order of their launches, because their identities say nothing.
"""

from __future__ import annotations

import hashlib
import platform
import shlex
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import attrs

import gpu_worker
import pie_trio
from pie_trio.events import (
    Event,
    HostCalled,
    InstanceFinished,
    RecordingStarted,
    WorkerDied,
    event_name,
)
from pie_trio.testing.simulation import Outcome
from pie_trio.testing.timeline import FaultStruck, RuleBroken

TIMELINE_LINES = 15
STRIKES_SHOWN = 6  # faults that are always among these lines
LINE_CHARACTERS = 120
DIGEST_LENGTH = 12
UNTOLD = ("at", "level", "tenant", "program")  # an instance is shown with its program


def source_digest() -> str:
    """Of all our Python sources: two places with the same one run the same seeds alike."""
    digest = hashlib.sha256()
    for package in (pie_trio, gpu_worker):
        root = Path(str(package.__file__)).parent
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{root.name}/{path.relative_to(root)}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:DIGEST_LENGTH]


def versions() -> str:
    """All that decides whether a seed means the same elsewhere."""
    return (
        f"pie-trio {pie_trio.__version__}, source {source_digest()}, trio {version('trio')}, "
        f"wasmtime {version('wasmtime')}, Python {platform.python_version()}"
    )


def replay_command(outcome: Outcome, scenario: str, kinds: str | None = None) -> str:
    """The line that repeats a run, on any machine with the same versions."""
    words = ["pie-trio", "sim", "replay", str(outcome.seed)]
    words += ["--scenario", scenario, "--scheduler", outcome.scheduler]
    return shlex.join(words if kinds is None else [*words, "--faults", kinds])


def failure_text(outcome: Outcome, command: str) -> str:
    """A failing run in a block of lines."""
    lines = [
        f"seed {outcome.seed} FAILED",
        *(f"  {name:<11} {_cut(text)}" for name, text in summary(outcome)),
        *(f"  {line}" for line in timeline_lines(outcome)),
        f"  {'replay':<11} {command}",
    ]
    return "\n".join(lines)


def summary(outcome: Outcome) -> list[tuple[str, str]]:
    """What stands above a run's events, by name."""
    limits = ", ".join(f"{name} {value:g}" for name, value in outcome.limits.items())
    steps = f"{outcome.steps} steps, {outcome.seconds:.2f} virtual seconds"
    return [
        ("version", versions()),
        ("run", f"scenario {outcome.scenario}, scheduler {outcome.scheduler}, {steps}"),
        ("faults", _faults(outcome)),
        ("limits", limits or "as usual"),
        *(("violated", rule) for rule in outcome.violations),
    ]


def timeline_lines(outcome: Outcome, lines_max: int = TIMELINE_LINES) -> list[str]:
    """The events that matter most, in order; the last ones before the first broken rule."""
    events = outcome.timeline
    names = instance_names(events)
    end = next(
        (place for place, event in enumerate(events) if isinstance(event, RuleBroken)),
        len(events) - 1,
    )
    before = range(end + 1)
    chosen = {end} if events else set[int]()
    strikes = [place for place in before if isinstance(events[place], FaultStruck)]
    chosen.update(strikes[-STRIKES_SHOWN:])
    for matters in (_is_grave, _is_news, _is_told):
        for place in reversed(before):
            if len(chosen) < lines_max and matters(events[place]):
                chosen.add(place)
    return [event_line(events[place], names) for place in sorted(chosen)]


def event_line(event: Event, names: dict[str, str]) -> str:
    """Time, what, and its facts."""
    name = event_name(type(event)).replace("_", " ")
    return _cut(f"{event.at:10.4f}  {name:<19} {event_facts(event, names)}")


def event_facts(event: Event, names: dict[str, str]) -> str:
    """What an event says beside its name and its time, as `name=value`."""
    facts = (
        (field.name, getattr(event, field.name))
        for field in attrs.fields(type(event))
        if field.name not in UNTOLD
    )
    return " ".join(f"{name}={_plain(value, names)}" for name, value in facts if value != "")


def instance_names(events: Sequence[Event]) -> dict[str, str]:
    """Identity -> `#2 text-completion`."""
    names: dict[str, str] = {}
    for event in events:
        instance = getattr(event, "instance", None)
        if isinstance(instance, str) and instance not in names:
            program = str(getattr(event, "program", "")).partition("@")[0]
            names[instance] = f"#{len(names)} {program}".strip()
    return names


def _is_grave(event: Event) -> bool:
    return isinstance(event, WorkerDied) or (
        isinstance(event, InstanceFinished) and event.outcome != "return"
    )


def _is_news(event: Event) -> bool:
    return event.level != "debug" and not isinstance(event, RecordingStarted)


def _is_told(event: Event) -> bool:
    return not isinstance(event, HostCalled)


def _faults(outcome: Outcome) -> str:
    struck = {fault.number for fault in outcome.fired}
    waiting = [f for f in outcome.faults if f.kind != "limits" and f.number not in struck]
    rest = f" ({len(waiting)} more did not come due)" if waiting else ""
    return (", ".join(map(str, outcome.fired)) or "none") + rest


def _plain(value: object, names: dict[str, str]) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = names.get(value, value) if isinstance(value, str) else str(value)
    return repr(text) if " " in text and not text.startswith("#") else text


def _cut(text: str) -> str:
    first = " ".join(text.split("\n"))
    return first if len(first) <= LINE_CHARACTERS else first[: LINE_CHARACTERS - 3] + "..."
