"""Disks that are full and stores that refuse: it ends nobody but who asked, and has a name."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from pie_trio.config import Limits
from pie_trio.errors import NotStored
from pie_trio.services.program_store import ProgramStore
from pie_trio.testing.faults import WRITES, Fault
from pie_trio.testing.raw_client import MANIFEST
from pie_trio.testing.simulation import Simulation


@pytest.mark.parametrize("point", WRITES)
def test_a_full_disk_refuses_a_program_and_ends_no_server(point: str) -> None:
    fault = Fault(0, f"disk.{point}", 0)
    outcome = Simulation(1, [fault], "storing").run()
    assert outcome.violations == ()
    assert outcome.fired == (fault,)
    assert outcome.reached["a program could not be stored"] == 1
    assert all(launch.value is not None for launch in outcome.launches)


def test_a_store_of_keys_that_refuses_ends_its_guest_alone() -> None:
    fault = Fault(0, "point.kvs.set", 1)
    outcome = Simulation(1, [fault], "keys").run()
    assert outcome.violations == ()
    assert outcome.fired == (fault,)
    assert sorted(launch.value is None for launch in outcome.launches) == [False, False, True]


@pytest.mark.parametrize("point", WRITES)
def test_what_the_disk_does_not_take_leaves_no_file(point: str, tmp_path: Path) -> None:
    def hit(name: str) -> None:
        if name == point:
            raise OSError(errno.ENOSPC, "No space left on device")

    store = ProgramStore(tmp_path / "p", Limits(), shipped=tmp_path / "none", hit=hit)
    with pytest.raises(NotStored, match=r"stored-a@.* cannot be stored: No space left"):
        store.install(MANIFEST.format(name="stored-a"), b"# a", overwrite=True)
    assert [path for path in (tmp_path / "p").rglob("*") if path.is_file()] == []
