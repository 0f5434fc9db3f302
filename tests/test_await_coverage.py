"""The list of places at which somebody on an instance's path can wait is the list that Python sees.

The parser and the byte code have to name the same places: a site that a run shows and the list
lacks would never be demanded.
"""

from __future__ import annotations

import pytest

from pie_trio.testing.await_coverage import Coverage, Places
from pie_trio.testing.await_graph import AwaitGraph, PathSite
from pie_trio.testing.cancellation import Report
from pie_trio.testing.everywhere import census_of
from pie_trio.testing.scenarios import load_scenario

ELSEWHERE = ("pie_trio/testing/", "pie_trio/client/")


@pytest.fixture(scope="module")
def places() -> Places:
    return Places.of_package()


def texts(sites: tuple[PathSite, ...], function: str) -> set[str]:
    return {site.text for site in sites if site.function.endswith(function)}


def test_what_an_instance_a_queue_a_lease_and_a_connection_await_is_listed(places: Places) -> None:
    for function, text in (
        ("engine.py:Engine._live", "await guest.run()"),
        ("command_queue.py:CommandQueue._post", "await self._send.send(command)"),
        ("resource_manager.py:ResourceManager._serve", "async for request in receive:"),
        ("connection.py:Connection._listen", "await session.hear(frame)"),
        ("message.py:send", "await host.put(OutputEvent('message', message))"),
        ("poll.py:_wait_for_first.wait_and_end", "await pollable.wait()"),
    ):
        assert text in texts(places.required, function), function


def test_what_never_waits_is_not_listed(places: Places) -> None:
    """A nursery that is entered, a lock that is left, a function that only looks like waiting."""
    parts = {
        (site.function, site.site.part)
        for site in places.required
        if site.text.startswith("async with")
    }
    assert ("actors/instance.py:Instance.run", "enter") not in parts
    assert ("services/gateway/server.py:_watch", "exit") in parts
    assert ("services/gateway/server.py:_watch", "enter") not in parts
    assert ("outlet.py:OutputBuffer.put", "enter") in parts
    assert ("outlet.py:OutputBuffer.put", "exit") not in parts


def test_other_rooms_are_not_on_the_path() -> None:
    files = {site.site.file for site in AwaitGraph().sites_on_path()}
    assert not [file for file in files if file.startswith(("pie_trio/cli", *ELSEWHERE))]


@pytest.mark.parametrize("name", ["branches", "crowds", "requests", "outputs"])
def test_wherever_a_victim_stands_is_a_listed_place(name: str) -> None:
    listed = {site.site for site in AwaitGraph().sites_on_path()}
    census = census_of(load_scenario(name))
    assert not census.wrong
    stood = {
        site
        for victims, stands in census.stands.items()
        if victims.kind in ("instance", "connection")
        for stand in stands
        for site in stand.sites
        if site.file.startswith("pie_trio/") and not site.file.startswith(ELSEWHERE)
    }
    assert len(stood) > 30
    assert not sorted(map(str, stood - listed))


def test_a_clean_up_is_a_finally_an_exit_and_what_they_await(places: Places) -> None:
    cleaning = {(site.function, site.text) for site in places.required if site.in_clean_up}
    closing = "await trio.aclose_forcefully(self._stream)"
    assert ("services/gateway/connection.py:Connection.run", closing) in cleaning
    assert ("engine.py:Engine._live", "await guest.run()") not in cleaning


def test_what_nobody_was_cancelled_at_is_told_with_file_and_line(places: Places) -> None:
    coverage = Coverage(Report("nothing"), places)
    assert not coverage.holds
    assert coverage.missing_once == list(places.required)
    assert f"never at {places.required[0].site} in" in coverage.text()
    told = Coverage(Report("all", once={site.site for site in places.required}), places)
    assert not told.missing_once
    assert [site.site for site in told.missing_twice] == [
        site.site for site in places.required if site.in_clean_up
    ]


def test_every_exclusion_has_a_reason_that_names_something(places: Places) -> None:
    assert places.excluded
    assert not places.unused, "these exclusions match no place any more"
    assert all(len(why) > 10 for _, why in places.excluded)
