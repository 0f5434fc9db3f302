"""The limits of a simulated world: small enough to be reached, and tightened as a seed says.

Pure. A simulated world has tiny pages and short times, so that a run of some hundred steps meets
page borders, full mailboxes and time-outs; what a seed draws (`faults.KNOBS`) goes on top.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

from pie_trio.config import Batching, BatchTrigger, Limits, ModelSettings, Settings
from pie_trio.testing.faults import Fault
from pie_trio.testing.sim_net import BUFFER_BYTES
from pie_trio.testing.sim_process import WorkerPace
from pie_trio.testing.sim_web import ALLOWED

MODEL = "pretend"
OTHER_MODEL = "other"
PAGES = 48


@attrs.frozen
class WorldSettings:
    """All that a simulated world is built from."""

    settings: Settings
    pace: WorkerPace
    stream_bytes: int
    drawn: dict[str, float]


def world_settings(faults: Iterable[Fault], seed: int, *, two_models: bool) -> WorldSettings:
    drawn = {f.point.partition(".")[2]: f.size for f in faults if f.kind == "limits"}
    left = dict(drawn)
    pages = int(left.pop("pages", PAGES))
    pace = WorkerPace(step_seconds=left.pop("step_seconds", WorkerPace().step_seconds))
    stream_bytes = int(left.pop("stream_bytes", BUFFER_BYTES))
    triggers = list(BatchTrigger)
    batching = Batching(triggers[int(left.pop("trigger", 0))])
    limits = attrs.evolve(_base_limits(), **_typed(left))
    models = [ModelSettings(MODEL, pretend=True, pages_max=pages)]
    if two_models:
        models.append(ModelSettings(OTHER_MODEL, pretend=True, pages_max=PAGES))
    settings = Settings(
        models=tuple(models), limits=limits, batching=batching, seed=seed, fetch_allow=ALLOWED
    )
    return WorldSettings(settings, pace, stream_bytes, drawn)


def _base_limits() -> Limits:
    return Limits(
        page_tokens=4,
        embeddings=8,
        page_wait_seconds=5.0,
        batch_seconds_max=20.0,
        worker_start_seconds=30.0,
        worker_restarts_max=20,
        heartbeat_seconds=3.0,
        heartbeat_lost_seconds=10.0,
        client_stall_seconds=10.0,
        detached_write_seconds=20.0,
        grace_seconds=2.0,
    )


def _typed(values: dict[str, float]) -> dict[str, Any]:
    """Whole numbers where the limit is one."""
    whole = {field.name for field in attrs.fields(Limits) if field.type in ("int", int)}
    return {name: int(value) if name in whole else value for name, value in values.items()}
