"""Whoever lives in a simulated world may be cancelled anywhere: a sample, and that it would show.

`pie-trio sim cancel-everywhere --scenario all` runs everything; here is one victim of each kind.
"""

from __future__ import annotations

import pytest

from pie_trio.actors.resource_manager import Lease, ResourceManager
from pie_trio.errors import BadConfig
from pie_trio.services.gateway.feed import Feed
from pie_trio.testing.campaign import run_everywhere
from pie_trio.testing.cancellation import Cancellation, Plan
from pie_trio.testing.everywhere import (
    Everywhere,
    Victims,
    cancel_scenario,
    census_of,
    replay_cancellation,
)
from pie_trio.testing.scenarios import load_scenario

QUICK = Plan(twice=False, faults=False, stride=5)


@pytest.mark.parametrize("kind", ["instance", "connection", "goodbye"])
def test_a_victim_of_each_kind_leaves_a_world_in_which_every_rule_holds(kind: str) -> None:
    report = cancel_scenario("branches", kinds=[kind], plan=QUICK)
    assert report.holds, report.text()
    assert report.by_mode["once"] > 10


def test_the_same_handle_is_the_same_run() -> None:
    runs = [replay_cancellation("crowds", "instance 2", "3+2") for _ in range(2)]
    assert runs[0].site is not None
    assert runs[0].second_site is not None
    assert str(runs[0]) == str(runs[1])
    assert runs[0].once == runs[1].once
    assert not runs[0].wrong


def test_a_census_names_everybody_in_the_order_of_birth() -> None:
    names = [str(victims) for victims in census_of(load_scenario("branches")).victims()]
    assert names[:4] == ["instance 0", "instance 1", "instance 2", "instance 3"]
    assert names[-3:] == ["clients", "worker", "stop"]
    assert [Victims.parse(name) for name in names][3] == Victims("instance", 3)


def test_an_unknown_victim_is_refused() -> None:
    with pytest.raises(BadConfig, match="instance"):
        Victims.parse("bystander 3")


def test_a_lease_that_is_not_buried_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    bury = ResourceManager.bury

    def forget_one_in_a_while(self: ResourceManager, lease: Lease) -> None:
        if lease.owner.number != 1:
            bury(self, lease)

    monkeypatch.setattr(ResourceManager, "bury", forget_one_in_a_while)
    everywhere = Everywhere(load_scenario("branches"), Victims("instance", 1))
    assert everywhere.run(Cancellation(4)).wrong


def test_a_reader_that_stays_attached_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a connection holds of an instance is given back however the connection ends."""
    run = Feed.run

    async def run_and_stay(self: Feed) -> None:
        reader, self.reader.detach = self.reader, lambda: None  # type: ignore[method-assign]
        await run(self)
        del reader

    monkeypatch.setattr(Feed, "run", run_and_stay)
    report = cancel_scenario("attach", kinds=["connection"], plan=QUICK)
    assert report.failures


@pytest.mark.slow
def test_a_campaign_counts_what_its_time_does_not_suffice_for() -> None:
    coverage = run_everywhere(["attach"], seconds=0.0)
    assert coverage.report.skipped > 0
    assert coverage.report.by_mode == {"whole": 1}
    assert not coverage.report.failures, coverage.text()
    assert "the time was over before all was tried" in coverage.text()
