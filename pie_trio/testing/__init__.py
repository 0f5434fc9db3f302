"""The simulation harness: the whole product on a virtual clock, with faults, from one seed.

    from pie_trio.testing import Simulation
    outcome = Simulation(7, "worker,kill", "sharing").run()  # or an async function of a world

scheduler   who runs next           faults      what goes wrong         knobs      tightened limits
sim_worker  workers                 sim_net     connections             guests     scripted programs
scenarios   what users do           world       what a scenario gets    workshop   what runs share
invariants  after every step        oracles     at the end              timeline   events of its own
simulation  one run                 swarm       many                    minimise   a smaller one
report      what a failure says     explain     a page of HTML          plugin     for pytest

Production never imports this package. `inline_worker` is the simpler worker of plain tests.
"""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pie_trio.testing.cancellation import cancel_everywhere
    from pie_trio.testing.faults import Fault, Faults
    from pie_trio.testing.inferlet_trial import open_trial
    from pie_trio.testing.scenarios import Scenario
    from pie_trio.testing.simulation import Outcome, Simulation
    from pie_trio.testing.swarm import run_seeds
    from pie_trio.testing.world import World

__all__ = [
    "Fault",
    "Faults",
    "Outcome",
    "Scenario",
    "Simulation",
    "World",
    "cancel_everywhere",
    "open_trial",
    "run_seeds",
]
# Loaded when first asked for: pytest loads this package wherever it is installed.
PLACES = MappingProxyType(
    {
        "Fault": "faults",
        "Faults": "faults",
        "Outcome": "simulation",
        "Scenario": "scenarios",
        "Simulation": "simulation",
        "World": "world",
        "cancel_everywhere": "cancellation",
        "open_trial": "inferlet_trial",
        "run_seeds": "swarm",
    }
)


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{PLACES[name]}"), name)
