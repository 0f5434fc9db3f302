"""Plays one side of a comparison of rates, some seeds a line, and says what they took.

    python -m pie_trio.testing.rate_child [DIRECTORY]

Alone it plays the scripted profile. With a directory it plays what that directory's `sim.py` plays,
another simulator of the same kind: `Simulation(seed, None, mode)` with `run()`, `steps`, `bad` and
`worker.batches`. It counts CPU seconds, so that another process beside it costs neither side. A
rule that is broken ends it: the rate of a simulator that is wrong says nothing.
"""

from __future__ import annotations

import gc
import importlib
import json
import sys
import time
from collections.abc import Callable
from typing import Final

MODES: Final = ("shuffle", "walk", "pct")  # both sides know these
# The kinds that both sides have; hoarders and rude guests would be guests more.
KINDS: Final = "worker,link,kill,jitter,point,limits"

Played = tuple[int, int]  # steps of tasks, passes that reached a worker


def profile() -> Callable[[int, str], Played]:
    """Ours: production's engine, actors, queues, link and wire."""
    from pie_trio.events import BatchDispatched
    from pie_trio.testing.faults import Faults
    from pie_trio.testing.simulation import Simulation

    kinds = Faults.parse(KINDS)
    gc.disable()  # as in a swarm: a run of ours collects garbage when it is due

    def play(seed: int, mode: str) -> Played:
        outcome = Simulation(seed, kinds, "scripted", mode).run()  # type: ignore[arg-type]
        assert not outcome.violations, f"seed {seed}: {outcome.violations}"
        batches = (e for e in outcome.timeline if isinstance(e, BatchDispatched))
        return outcome.steps, sum(batch.passes for batch in batches)

    return play


def other(directory: str) -> Callable[[int, str], Played]:
    """Whatever is in the directory."""
    sys.path.insert(0, directory)
    simulator = importlib.import_module("sim")

    def play(seed: int, mode: str) -> Played:
        run = simulator.Simulation(seed, None, mode).run()
        assert not run.bad, f"seed {seed} of {directory}: {run.bad}"
        return run.steps, sum(map(len, run.worker.batches))

    return play


def main() -> None:
    play = other(sys.argv[1]) if len(sys.argv) > 1 else profile()
    for line in sys.stdin:
        first, count = map(int, line.split())
        began = time.process_time()
        played = [play(seed, MODES[seed % len(MODES)]) for seed in range(first, first + count)]
        seconds = time.process_time() - began
        steps, passes = (sum(numbers) for numbers in zip(*played, strict=True))
        record = {"scenarios": count, "steps": steps, "passes": passes, "seconds": seconds}
        sys.stdout.write(json.dumps(record) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
