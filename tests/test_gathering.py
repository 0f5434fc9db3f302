"""Whom a batch waits for, and who stands back: one guest's passes beside its answers."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from pie_trio.config import Limits
from pie_trio.gathering import HOPS, Gathering

PATIENT = Limits(gather_seconds_min=1000.0)


async def test_who_submitted_as_much_as_it_was_answered_stands_back_until_the_batch_has_left(
    autojump_clock: trio.testing.MockClock,
) -> None:
    gathering, went_on = Gathering(PATIENT), []
    gathering.begin({7: 1})
    gathering.submitted(7, trio.current_time())

    async def stand_back() -> None:
        await gathering.stand_back(7)
        went_on.append(7)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stand_back)
        await gathering.wait(0.0)
        await wait_all_tasks_blocked()
        assert not went_on, "the batch has not left yet"
        gathering.end()
    assert went_on == [7]
    assert trio.current_time() == 0.0, "nobody waited for what it does now"


async def test_who_waits_again_almost_at_once_after_a_pass_is_spared_standing_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    gathering = Gathering(PATIENT)

    assert await _stood_back(gathering, busy_seconds=0.0), "nobody knows it yet"
    assert not await _stood_back(gathering, busy_seconds=1.0)
    assert await _stood_back(gathering, busy_seconds=0.0), "it was not prompt the last time"
    assert not await _stood_back(gathering, busy_seconds=0.0)


async def _stood_back(gathering: Gathering, busy_seconds: float) -> bool:
    """One batch with one guest, which then runs for so long until it waits."""
    went_on: list[int] = []

    async def stand_back() -> None:
        await gathering.stand_back(7)
        went_on.append(7)

    gathering.begin({7: 1})
    gathering.submitted(7, trio.current_time())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stand_back)
        await wait_all_tasks_blocked()
        stood_back = not went_on
        gathering.end()
    await trio.sleep(busy_seconds)
    gathering.parked(7)
    return stood_back


async def test_whoever_got_more_answers_than_it_submitted_is_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    gathering = Gathering(Limits(gather_seconds_min=3.0))
    gathering.begin({7: 2})
    gathering.submitted(7, trio.current_time())
    await gathering.stand_back(7)
    await gathering.wait(0.0)
    assert trio.current_time() == 3.0


async def test_a_guest_that_submitted_more_than_its_answers_stands_back_no_more_the_next_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Else a guest that forks would be cut into one pass and the rest, batch after batch."""
    gathering = Gathering(PATIENT)
    gathering.begin({7: 1})
    gathering.submitted(7, trio.current_time())
    gathering.end()
    gathering.submitted(7, trio.current_time())
    gathering.begin({7: 1})
    gathering.submitted(7, trio.current_time())
    with trio.fail_after(1):
        await gathering.stand_back(7)
    gathering.end()
    gathering.begin({7: 1})
    gathering.submitted(7, trio.current_time())
    with trio.move_on_after(1) as scope:
        await gathering.stand_back(7)
    assert scope.cancelled_caught, "once it kept to its answers, it is trusted again"


async def test_the_dead_hold_up_nobody(autojump_clock: trio.testing.MockClock) -> None:
    gathering = Gathering(PATIENT)
    gathering.begin({7: 1})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gathering.wait, 0.0)
        await wait_all_tasks_blocked()
        gathering.gone(7)
    assert trio.current_time() == 0.0


async def test_a_whole_cohort_is_gone_without_another_look(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def turns(answers: int, *, arrives: bool = True) -> int:
        """Of the scheduler, from the moment when the only guest rests."""
        gathering, count = Gathering(PATIENT), 0
        gathering.begin({7: answers})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gathering.wait, 0.0)
            await wait_all_tasks_blocked()
            gathering.submitted(7, trio.current_time())
            if arrives:
                gathering.arrived(7)
            gathering.parked(7)
            while nursery.child_tasks:
                await trio.lowlevel.checkpoint()
                count += 1
        return count

    assert await turns(answers=1) <= HOPS
    assert await turns(answers=2) > HOPS, "it may go on in a moment"
    assert await turns(answers=1, arrives=False) > HOPS, "its queue hands it on in a moment"
