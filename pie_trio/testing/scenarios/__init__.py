"""The named scenarios: plain async functions over the public client.

A scenario gets a `World` and may use nothing else of the simulator. It does not know about faults;
it does what users do, and lives with named errors. `load_scenario` also takes a file of yours with
`async def scenario(world)`, and with `PROGRAMS` or `TWO_MODELS` if its world needs them.
"""

from __future__ import annotations

import inspect
import runpy
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs

from pie_trio.errors import BadConfig
from pie_trio.testing.scenarios import (
    basic,
    constraints,
    families,
    fused,
    grounds,
    lines,
    mixed,
    partings,
    real,
    scripted,
    waits,
)
from pie_trio.testing.world import World

ScenarioFunction = Callable[[World], Awaitable[None]]


@attrs.frozen
class Scenario:
    """A scenario with what its world must have."""

    name: str
    run: ScenarioFunction
    programs: tuple[str, ...] = ()  # components that are compiled before the clock is virtual
    two_models: bool = False
    has_door: bool = True  # otherwise there is no gateway, and users ask the engine itself
    is_compared: bool = True  # steady programs that return are compared with a run of their own


SCENARIOS: Mapping[str, Scenario] = MappingProxyType(
    {
        scenario.name: scenario
        for scenario in (
            Scenario("mixed", mixed.mixed),
            Scenario("decode", basic.decode_many),
            Scenario("scripted", scripted.scripted, has_door=False),
            Scenario("branches", basic.branches),
            Scenario("sharing", basic.sharing),
            Scenario("talking", basic.talking),
            Scenario("keys", basic.keys),
            Scenario("storing", basic.storing),
            Scenario("attach", basic.attach_and_detach),
            Scenario("terminate", basic.terminate),
            Scenario("pressure", basic.pressure),
            Scenario("hostile", basic.hostile),
            Scenario("two-models", basic.two_models, two_models=True),
            Scenario("real", real.real_programs, real.PROGRAMS),
            Scenario("page-traffic", grounds.page_traffic),
            Scenario("last-pages", lines.last_pages, has_door=False),
            Scenario("pass-traffic", grounds.pass_traffic),
            Scenario("batch-mates", grounds.batch_mates, has_door=False),
            Scenario("lives", grounds.lives),
            Scenario("links", grounds.links),
            Scenario("constraints", constraints.constraints),
            Scenario("front-door", grounds.front_door),
            Scenario("partings", partings.partings),
            Scenario("fused", fused.fused),
            Scenario("refrains", fused.refrains, has_door=False, is_compared=False),
            Scenario("choirs", fused.choirs, has_door=False, is_compared=False),
            Scenario("airlock", grounds.airlock, real.PROGRAMS),
            Scenario("first-uses", waits.first_uses),
            Scenario("crowds", waits.crowds),
            Scenario("host-calls", waits.host_calls, waits.CALLING_PROGRAMS),
            Scenario("outputs", waits.outputs),
            Scenario("rewrites", waits.rewrites),
            Scenario("requests", waits.requests),
            Scenario("python", waits.python_programs, waits.PYTHON_PROGRAMS),
            Scenario("families", families.families),
        )
    }
)


def scenario_of_any(given: str | Scenario | ScenarioFunction) -> Scenario:
    """What a test author may call a scenario; a function is named as it is. Raises `BadConfig`."""
    if isinstance(given, str):
        return load_scenario(given)
    if isinstance(given, Scenario):
        return given
    is_plain = inspect.isfunction(given) and not inspect.iscoroutinefunction(given)
    if is_plain or not callable(given):
        raise BadConfig(f"a scenario is a name or an `async def` of one world, not {given!r}")
    return Scenario(getattr(given, "__name__", "scenario"), given)


def load_scenario(text: str) -> Scenario:
    """A name, or the path of a Python file. Raises `BadConfig`."""
    if text in SCENARIOS:
        return SCENARIOS[text]
    path = Path(text)
    if path.suffix != ".py":
        raise BadConfig(f"no scenario {text!r}; there are {', '.join(SCENARIOS)}, or give FILE.py")
    names = _names_in(path)
    found = names.get("scenario")
    if not inspect.iscoroutinefunction(found):
        raise BadConfig(f"{path} has no `async def scenario(world)`")
    return Scenario(
        path.stem, found, tuple(names.get("PROGRAMS", ())), bool(names.get("TWO_MODELS", False))
    )


def _names_in(path: Path) -> dict[str, Any]:
    """What the file defines; whatever it raises meanwhile is its author's."""
    if not path.is_file():
        raise BadConfig(f"there is no file {path}")
    try:
        return runpy.run_path(str(path))
    except Exception as error:
        raise BadConfig(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
