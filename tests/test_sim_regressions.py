"""Defects of the product that the simulator found, each with the seeds that show it."""

from __future__ import annotations

import pytest

from pie_trio.testing.faults import Faults
from pie_trio.testing.simulation import Simulation


@pytest.mark.parametrize("seed", [0, 2])
def test_a_disk_that_is_full_when_a_program_is_stored_ends_no_server(seed: int) -> None:
    """An error of the system climbed from the store through the connection to the engine."""
    outcome = Simulation(seed, Faults.parse("disk,jitter"), "storing").run()
    assert outcome.violations == ()
    assert any(fault.point.startswith("disk.program_store.") for fault in outcome.fired)
    assert outcome.reached["a program could not be stored"]


def test_a_worker_is_heard_while_there_is_no_room_for_its_start() -> None:
    """Whoever read the worker's messages waited for room, and its second greeting lay unread."""
    outcome = Simulation(1123, Faults(), "real", "shuffle").run()
    assert outcome.violations == ()
    assert {"link.busy", "link.duplicate"} <= {fault.point for fault in outcome.fired}
