"""`inferlet:zo/evolve`: adapters trained by evolution strategies, which are not served yet.

Owns nothing. The functions link, so that every program of the `inferlet:exec` world starts; whoever
calls one ends with the reason.
It must never pretend to have done something.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from pie_trio.wasm.host.faults import not_served
from pie_trio.wasm.host.passes import PassBuilder
from pie_trio.wasm.host.resources import Queue
from pie_trio.wasm.host.state import InstanceHost

if TYPE_CHECKING:
    from pie_trio.wasm.linker import HostFunction


def set_adapter_seed(_host: InstanceHost, _builder: PassBuilder, _seed: int) -> None:
    raise not_served("set-adapter-seed", "adapters")


def initialize_adapter(
    _host: InstanceHost,
    _queue: Queue,
    _adapter: int,
    _rank: int,
    _alpha: float,
    _population_size: int,
    _mu_fraction: float,
    _initial_sigma: float,
) -> None:
    raise not_served("initialize-adapter", "adapters")


def update_adapter(
    _host: InstanceHost,
    _queue: Queue,
    _adapter: int,
    _scores: Sequence[float],
    _seeds: Sequence[int],
    _max_sigma: float,
) -> None:
    raise not_served("update-adapter", "adapters")


EVOLVE: Mapping[str, HostFunction] = MappingProxyType(
    {
        "set-adapter-seed": set_adapter_seed,
        "initialize-adapter": initialize_adapter,
        "update-adapter": update_adapter,
    }
)
