"""`cancel_everywhere` finds what a program does wrong when it is cancelled, at any one place.

The programs here are a few lines each and use nothing of the engine: the tool is for every Trio
program. The last tests are the contract with the names of Trio that it looks into.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from pie_trio.testing.await_sites import Site
from pie_trio.testing.cancellation import (
    Cancellation,
    Plan,
    Report,
    Victim,
    cancel_everywhere,
    replay,
)
from pie_trio.testing.cancellation_probe import (
    Probe,
    Run,
    _is_told,
    _timed_shields,
)


@attrs.define(eq=False)
class Rooms:
    """A hotel; whoever books a room gives it back."""

    free: int = 3
    lock: trio.Lock = attrs.field(factory=trio.Lock)
    semaphore: trio.Semaphore = attrs.field(factory=lambda: trio.Semaphore(1))
    log: list[str] = attrs.field(factory=list)


@asynccontextmanager
async def hotel() -> AsyncIterator[Rooms]:
    yield Rooms()


def all_rooms_are_free(rooms: Rooms) -> None:
    assert rooms.free == 3, f"{rooms.free} rooms are free"


async def stay(rooms: Rooms) -> None:
    rooms.free -= 1
    try:
        async with rooms.lock:
            await trio.sleep(1)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep, 2)
                nursery.start_soon(trio.sleep, 3)
    finally:
        rooms.free += 1


async def book_too_early(rooms: Rooms) -> None:
    rooms.free -= 1
    await trio.sleep(1)
    try:
        await trio.sleep(2)
    finally:
        rooms.free += 1


async def clean_the_room_first(rooms: Rooms) -> None:
    rooms.free -= 1
    try:
        await trio.sleep(1)
    finally:
        await trio.lowlevel.checkpoint()
        rooms.free += 1


async def say_goodbye_in_time(rooms: Rooms) -> None:
    rooms.free -= 1
    try:
        await trio.sleep(1)
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
            await trio.sleep(0.5)
            rooms.free += 1


def hunt(scenario: object, **options: object) -> Report:
    return cancel_everywhere(scenario, world=hotel, check=all_rooms_are_free, **options)  # type: ignore[arg-type]


def line_of(site: Site | None) -> str:
    assert site is not None, "a run that was cancelled knows where"
    with open(__file__, encoding="utf-8") as source:  # noqa: PTH123
        return source.read().splitlines()[site.line - 1].strip()


def test_a_program_that_gives_back_what_it_took_holds_everywhere() -> None:
    report = hunt(stay, plan=Plan(anybody=True))
    assert report.holds, report.text()
    assert report.places > 4
    assert report.by_mode["once"] > report.places
    assert {line_of(site) for site in report.once} >= {
        "await trio.sleep(1)",
        "async with trio.open_nursery() as nursery:",
    }


def test_a_leak_is_found_at_its_place_and_only_there() -> None:
    report = hunt(book_too_early)
    first = report.failures[0]
    assert not report.holds
    assert {line_of(run.site) for run in report.failures} == {"await trio.sleep(1)"}
    assert first.wrong == ["AssertionError: 2 rooms are free"]
    assert f"1 at tests/test_cancellation.py:{first.site.line if first.site else 0}" in str(first)


def test_the_printed_handle_names_the_same_run_again() -> None:
    report = hunt(book_too_early)
    for found in report.failures:
        handle = str(found.cancellation)
        again = replay(book_too_early, handle, world=hotel, check=all_rooms_are_free)
        assert str(again) == str(found)
        assert again.wrong
    assert not replay(book_too_early, "2", world=hotel, check=all_rooms_are_free).wrong


@pytest.mark.parametrize("text", ["17", "~204", "17+3", "17!2", "~9!2@worker", "17@a fault"])
def test_a_handle_is_the_cancellation_as_text(text: str) -> None:
    assert str(Cancellation.parse(text)) == text


def test_a_text_that_names_no_cancellation_is_refused() -> None:
    with pytest.raises(ValueError, match="17"):
        Cancellation.parse("+3")


def test_a_clean_up_that_waits_is_found_although_it_has_a_finally() -> None:
    report = hunt(clean_the_room_first)
    assert report.failures
    assert [line_of(site) for site in report.twice] == ["await trio.lowlevel.checkpoint()"]


def test_a_shielded_clean_up_is_cancelled_when_its_time_is_over() -> None:
    """Only the second cancellation shows that what is given back depends on the grace."""
    assert hunt(say_goodbye_in_time, plan=Plan(twice=False)).holds
    report = hunt(say_goodbye_in_time)
    assert {str(run.cancellation) for run in report.failures} == {"1!1"}
    second = report.failures[0].second_site
    assert line_of(second) == "await trio.sleep(0.5)"
    assert second in report.twice
    assert report.twice <= report.cleaning


def test_a_hang_is_a_finding() -> None:
    async def wait_for_the_dead(_rooms: Rooms) -> None:
        done = trio.Event()

        async def work() -> None:
            await trio.sleep(1)
            done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            with trio.CancelScope(shield=True):
                await done.wait()

    report = hunt(wait_for_the_dead, plan=Plan(twice=False))
    assert report.failures
    assert all("hangs" in run.wrong[0] for run in report.failures)


def test_a_world_that_cannot_serve_once_more_is_a_finding() -> None:
    async def keep_the_key(rooms: Rooms) -> None:
        rooms.semaphore.acquire_nowait()
        await trio.sleep(1)
        rooms.semaphore.release()

    report = cancel_everywhere(keep_the_key, world=hotel)
    assert any("WouldBlock" in wrong for run in report.failures for wrong in run.wrong)


def test_background_faults_run_beside_every_cancellation() -> None:
    async def thief(rooms: Rooms) -> None:
        await trio.sleep(1.5)
        rooms.log.append("stolen")

    async def notice(rooms: Rooms) -> None:
        try:
            await trio.sleep(2)
        finally:
            assert not rooms.log, "something was stolen"

    report = hunt(notice, faults={"thief": thief})
    assert [str(run.cancellation) for run in report.failures] == ["0@thief"]
    assert report.by_mode == {"whole": 2, "once": 1}


def test_what_the_time_does_not_suffice_for_is_counted() -> None:
    report = hunt(stay, plan=Plan(seconds=0.0))
    assert report.skipped == report.places
    assert not report.holds


def test_shards_are_the_whole_together() -> None:
    whole, sum_of_parts = hunt(stay), Report("stay")
    for part in range(3):
        sum_of_parts.merge(hunt(stay, plan=Plan(shard=(part, 3))))
    assert sum_of_parts.by_mode["once"] == whole.by_mode["once"]
    assert sum_of_parts.by_mode["twice"] == whole.by_mode["twice"]
    assert sum_of_parts.once == whole.once


def test_an_instrument_that_fails_is_a_finding_and_not_silence() -> None:
    def broken(_rooms: Rooms) -> Victim:
        return Victim(lambda _task: bool(1 // 0), lambda: None, lambda: False)

    report = cancel_everywhere(stay, world=hotel, victim=broken)
    assert "the harness is broken" in report.failures[0].wrong[0]


# --- what Trio must go on to mean


@pytest.mark.parametrize("source", ["explicit", "deadline"])
def test_trio_shows_beforehand_that_a_task_will_be_told(source: str) -> None:
    """Exactly at the site where it stands; a time-out of its own is no cancellation of it."""
    told: list[bool] = []

    class Watch(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            if task.name == "sleeper":
                told.append(_is_told(task))

    async def sleeper() -> None:
        with trio.move_on_after(1 if source == "deadline" else math.inf) as scope:
            scopes.append(scope)
            await trio.lowlevel.checkpoint()
            await trio.sleep_forever()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sleeper, name="sleeper")
            await trio.testing.wait_all_tasks_blocked()
            if source == "explicit":
                scopes[0].cancel()

    scopes: list[trio.CancelScope] = []
    trio.run(main, instruments=[Watch()], clock=trio.testing.MockClock(autojump_threshold=0))
    assert told == [False, False, source == "explicit"]


def test_a_nursery_that_is_cancelled_while_it_waits_counts_as_told() -> None:
    report = hunt(stay)
    (leaving,) = [site for site in report.once if site.part == "exit"]
    assert line_of(leaving) == "async with trio.open_nursery() as nursery:"


async def test_trio_tells_which_shields_protect_a_task_for_a_time() -> None:
    task = trio.lowlevel.current_task()
    with trio.CancelScope(shield=True), trio.move_on_after(5, shield=True) as timed:
        await trio.lowlevel.checkpoint()
        assert list(_timed_shields(task)) == [timed]
        assert timed.deadline < math.inf
    assert not list(_timed_shields(task))


def test_trio_calls_an_instrument_when_the_task_is_suspended_already() -> None:
    run, everything = Run(Cancellation(1)), trio.CancelScope()
    probe = Probe(run, everything.cancel)

    async def main() -> None:
        task = trio.lowlevel.current_task()
        with trio.CancelScope() as scope:
            probe.victim = Victim(lambda each: each is task, scope.cancel, lambda: False)
            await trio.sleep(1)
            raise AssertionError("it was cancelled exactly there")

    trio.run(main, instruments=[probe])
    assert run.was_cancelled
    assert [line_of(site) for site in run.once] == ["await trio.sleep(1)"]
