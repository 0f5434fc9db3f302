"""Each situation comes about whatever the order, and the clean product does right in it."""

from __future__ import annotations

from collections import Counter

import pytest
import trio

from pie_trio.events import BatchSettled, Event, InstanceFinished, PagesRefused, WorkerDied
from pie_trio.testing.faults import Fault
from pie_trio.testing.outcome import Outcome
from pie_trio.testing.scenarios import Scenario, ScenarioFunction, fused, lines, partings
from pie_trio.testing.scenarios.doors import Deed
from pie_trio.testing.scheduler import MODES, Mode
from pie_trio.testing.simulation import Simulation
from pie_trio.testing.world import World

IN_EVERY_ORDER = pytest.mark.parametrize("mode", MODES)


def played(
    situation: ScenarioFunction, mode: Mode, faults: tuple[Fault, ...] = (), *, door: bool = False
) -> Outcome:
    scenario = Scenario("situation", situation, has_door=door)
    outcome = Simulation(1, faults, scenario, mode).run()
    assert outcome.violations == ()
    return outcome


def values(outcome: Outcome) -> Counter[str | None]:
    return Counter(launch.value for launch in outcome.launches)


def ends(outcome: Outcome) -> Counter[str]:
    return Counter(e.outcome for e in outcome.timeline if isinstance(e, InstanceFinished))


def settled(deed: Deed) -> Deed:
    """What was asked for is launched before the scenario ends."""

    async def play(world: World) -> None:
        await deed(world)
        await trio.sleep(partings.SETTLED_SECONDS)

    return play


def moments(outcome: Outcome, kind: type[Event]) -> list[float]:
    return [event.at for event in outcome.timeline if isinstance(event, kind)]


@IN_EVERY_ORDER
def test_who_asks_for_too_much_gives_up_before_the_holder_does(mode: Mode) -> None:
    outcome = played(lines.gives_up, mode)
    assert values(outcome) == {"kept": 1, "refused": 1, "got them": 1}
    [refused] = moments(outcome, PagesRefused)
    assert refused < moments(outcome, InstanceFinished)[-1]


@IN_EVERY_ORDER
def test_a_holder_falls_while_its_pages_are_written_and_all_who_wait_get_theirs(mode: Mode) -> None:
    outcome = played(lines.falls_writing, mode)
    assert outcome.reached["a page only a batch holds"]
    assert values(outcome) == {None: 1, "got them": 2}


@IN_EVERY_ORDER
def test_patience_ends_in_the_moment_in_which_pages_come_back(mode: Mode) -> None:
    outcome = played(lines.in_the_last_moment, mode)
    returned = {
        event.at
        for event in outcome.timeline
        if isinstance(event, InstanceFinished) and event.program.startswith("sim-keep")
    }
    assert len(returned) == lines.ROUNDS
    assert set(moments(outcome, PagesRefused)) <= returned
    assert values(outcome)["kept"] == 3 * lines.ROUNDS


@IN_EVERY_ORDER
def test_guests_fall_with_what_they_ask_for_on_its_way_and_nothing_is_kept_for_them(
    mode: Mode,
) -> None:
    outcome = played(lines.falls_asking, mode)
    assert values(outcome) == {"kept": 1, None: 4, "got them": 1}


def test_seeds_play_situations_one_after_the_other_and_nothing_is_broken() -> None:
    for seed in range(10):
        outcome = Simulation(seed, (Fault(0, "kill.step", 7 * seed),), "last-pages").run()
        assert outcome.violations == ()
        assert {launch.program for launch in outcome.launches} >= {"sim-ask", "sim-keep"}


@IN_EVERY_ORDER
def test_who_comes_back_reads_what_was_left_of_a_tale_that_waits_for_him(mode: Mode) -> None:
    outcome = played(partings.returning, mode, door=True)
    assert ends(outcome) == {"return": 1}


@IN_EVERY_ORDER
def test_answers_wait_behind_what_is_not_read_until_their_client_has_gone(mode: Mode) -> None:
    outcome = played(settled(partings.ghost), mode, door=True)
    assert ends(outcome) == {"Terminated": 7}


@IN_EVERY_ORDER
def test_some_launches_are_given_up_before_they_are_answered(mode: Mode) -> None:
    outcome = played(partings.hasty, mode, door=True)
    lives = [event.seconds for event in outcome.timeline if isinstance(event, InstanceFinished)]
    assert min(lives) < 1.0 < max(lives), "some were given up, some were launched in time"


@IN_EVERY_ORDER
def test_a_connection_is_cut_off_while_two_answers_are_due(mode: Mode) -> None:
    outcome = played(settled(partings.cut_off), mode, door=True)
    assert set(ends(outcome)) == {"Terminated"}


@IN_EVERY_ORDER
def test_a_choir_is_carried_on_by_its_worker_and_says_what_passes_say(mode: Mode) -> None:
    outcome = played(fused.choirs, mode)
    steps = [event.steps for event in outcome.timeline if isinstance(event, BatchSettled)]
    assert max(steps) > 4
    assert ends(outcome) == {"return": 3 * fused.VOICES}


@IN_EVERY_ORDER
def test_a_refrain_is_told_in_parts_and_given_up_between_them(mode: Mode) -> None:
    outcome = played(fused.refrains, mode)
    steps = [event.steps for event in outcome.timeline if isinstance(event, BatchSettled)]
    whole = 3 * fused.PART_TOKENS - 1
    assert max(steps) == whole
    assert any(fused.PART_TOKENS < count < whole for count in steps)


@pytest.mark.parametrize("size", [0.0, 0.3, 0.7])
def test_a_worker_that_lies_is_lost_whatever_the_lie(size: float) -> None:
    outcome = Simulation(2, (Fault(0, "link.wrong", 3, size),), "decode").run()
    assert outcome.violations == ()
    reasons = [event.reason for event in outcome.timeline if isinstance(event, WorkerDied)]
    assert [reason for reason in reasons if "it answered" in reason]
