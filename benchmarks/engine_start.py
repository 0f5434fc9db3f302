"""How long a cold process takes until it can compute: our worker, and transformers beside it.

Our worker starts in a home of its own, gone afterwards, with the same files of weights: first as an
installation leaves it, then with what the first start left behind. Everything is read from the page
cache, by both. A first start that had to compile kernels is no sample.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from benchmarks.engine_link import PeerLink, PeerLost
from gpu_worker.native.packed import PART
from pie_trio.config import Limits, ModelSettings
from pie_trio.errors import WorkerLost
from pie_trio.home import Home
from pie_trio.ports import Ports, RandomStreams
from pie_trio.services.worker_link import WorkerSpec, open_local_worker

PACKED = "packed-*"  # what a start leaves behind, beside the weights
KERNELS = "kernels"  # what a start compiles, in the home
KEEP_SECONDS_MAX, KEEP_POLL_SECONDS = 30.0, 0.05
FIRST, SECOND, TRANSFORMERS = "first", "second", "transformers"


def start_times(
    model: Path, rounds: int, open_transformers: Callable[[], PeerLink | None]
) -> Iterator[tuple[str, float]]:
    """Each as (what, seconds), in turns."""
    for _ in range(rounds):
        with _fresh_home(model) as copy:
            seconds = trio.run(_worker_seconds, copy, True)
            if (copy.parent.parent / KERNELS).exists():
                raise PeerLost("it compiled kernels: install the package anew")
            yield FIRST, seconds
            yield SECOND, trio.run(_worker_seconds, copy, False)
        link = open_transformers()
        if link is not None:
            yield TRANSFORMERS, link.start_seconds
            link.close()


@contextmanager
def _fresh_home(model: Path) -> Iterator[Path]:
    """The model under another home: its files are the same, what is derived from them is not."""
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=Home.default().root) as folder:
        copy = Path(folder) / "models" / model.name
        copy.mkdir(parents=True)
        for file in model.iterdir():
            if file.is_file() and not file.match(PACKED):
                os.link(file, copy / file.name)
        yield copy


async def _worker_seconds(model: Path, is_first: bool) -> float:
    """Until it is ready; a first one may then end what it does for later ones."""
    spec = WorkerSpec(ModelSettings(model.name), model, Limits(), Ports(RandomStreams(1)))
    started = time.perf_counter()
    async with open_local_worker(spec, 1) as link:
        ready = await link.wait_ready()
        if isinstance(ready, WorkerLost):
            raise PeerLost(str(ready))
        seconds = time.perf_counter() - started
        if is_first:
            await trio.to_thread.run_sync(_wait_until_kept, model)
        return seconds


def _wait_until_kept(model: Path) -> None:
    end = time.monotonic() + KEEP_SECONDS_MAX
    while time.monotonic() < end:
        if any(file.suffix != PART for file in model.glob(PACKED)):
            return
        time.sleep(KEEP_POLL_SECONDS)
