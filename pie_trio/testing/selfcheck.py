"""Is the same seed the same run? Asked of fresh processes, each with another hash seed.

    python -m pie_trio.testing.selfcheck < task.json

A process of its own plays the seeds of its task and writes the digest of each run's trace: every
step of every task, with its moment, and every event. Nothing is compared here but numbers; a seed
whose numbers differ is no use to anybody, so one difference fails the whole check.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

import attrs

from pie_trio.testing.faults import Faults
from pie_trio.testing.swarm import SwarmTask, run_chunk

HASH_SEEDS: Final = ("0", "1", "random")


class CheckBroken(Exception):
    """A process of the check died; this says nothing about any seed."""


def digests_elsewhere(task: SwarmTask) -> dict[int, list[int]]:
    """Each seed's digests, one a process; they run beside each other."""
    children = [_start(task, hash_seed) for hash_seed in HASH_SEEDS]
    found: dict[int, list[int]] = {seed: [] for seed in task.seeds}
    broken = []
    try:
        for child in children:
            out, err = child.communicate()
            if child.returncode != 0:
                broken.append(err.decode(errors="replace")[-500:])
                continue
            for seed, digest in json.loads(out).items():
                found[int(seed)].append(digest)
    finally:
        for child in children:
            child.kill()
            child.wait()
    if broken:
        raise CheckBroken(broken[0])
    return found


def differing(traces: dict[int, list[int]]) -> list[int]:
    """The seeds that were not the same run each time."""
    return [seed for seed, digests in traces.items() if len(set(digests)) != 1]


def _start(task: SwarmTask, hash_seed: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    child = subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    assert child.stdin is not None, "the task goes through a pipe"
    child.stdin.write(json.dumps(attrs.asdict(task)).encode())
    child.stdin.close()
    child.stdin = None  # so that `communicate` does not flush it again
    return child


def _task_of(text: str) -> SwarmTask:
    given = json.loads(text)
    kinds: Sequence[str] = given["faults"]["kinds"]
    return SwarmTask(
        tuple(given["seeds"]), given["scenario"], Faults(tuple(kinds)), given["scheduler"]
    )


def main() -> None:
    report = run_chunk(_task_of(sys.stdin.read()))
    sys.stdout.write(json.dumps(report.digests))


if __name__ == "__main__":
    main()
