"""Real guests that wait for each other: what one's death and one's slowness do to the other."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pie_trio.actors.instance import Instance
from pie_trio.config import Limits
from pie_trio.messages import InstanceEnded, OutputEvent
from pie_trio.services.guest_build.c_component import build_c
from tests.world import open_world, read_all

GUESTS = Path(__file__).parent / "guests"
ONE_UNREAD = Limits(topic_messages=1)
PATIENCE_SECONDS = 20


@pytest.fixture(scope="session")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    component = tmp_path_factory.mktemp("peer") / "peers.wasm"
    build_c(GUESTS, "peers.c", component)
    return component


async def _until_ready(instance: Instance) -> None:
    reader = instance.outlet.attach()
    events: list[OutputEvent] = []
    while OutputEvent("message", "ready") not in events:
        events += await reader.next_events()
    reader.detach()


async def _end_of(instance: Instance) -> InstanceEnded:
    with trio.fail_after(PATIENCE_SECONDS):
        await read_all(instance)
        return await instance.ended.answer()


async def test_a_publisher_goes_on_when_the_subscriber_that_it_waits_for_is_killed(
    peer: Path, tmp_path: Path
) -> None:
    async with open_world(tmp_path, limits=ONE_UNREAD) as world:
        listener = await world.launch(peer, "listen")
        await _until_ready(listener)
        shouter = await world.launch(peer, "shout", "--times", "3")
        await wait_all_tasks_blocked(0.1)
        assert not shouter.is_finished
        listener.terminate()
        assert (await _end_of(shouter)).value == "all was said"
        assert (await _end_of(listener)).error == "Signal"


async def test_a_publisher_that_is_killed_while_it_waits_is_heard_no_more(
    peer: Path, tmp_path: Path
) -> None:
    async with open_world(tmp_path, limits=ONE_UNREAD) as world:
        listener = await world.launch(peer, "listen")
        await _until_ready(listener)
        shouter = await world.launch(peer, "shout", "--times", "3")
        await wait_all_tasks_blocked(0.1)
        shouter.terminate()
        assert (await _end_of(shouter)).error == "Signal"
        listener.inbox.deliver("enough")
        assert (await _end_of(listener)).error is None


async def test_a_slow_subscriber_hears_everything_in_order(peer: Path, tmp_path: Path) -> None:
    async with open_world(tmp_path, limits=ONE_UNREAD) as world:
        hearers = [await world.launch(peer, "hear", "--times", "7") for _ in range(2)]
        for hearer in hearers:
            await _until_ready(hearer)
        shouter = await world.launch(peer, "shout", "--times", "7")
        assert (await _end_of(shouter)).value == "all was said"
        assert [(await _end_of(hearer)).value for hearer in hearers] == ["0123456"] * 2


async def test_what_was_said_before_anybody_listened_is_heard(peer: Path, tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        shouter = await world.launch(peer, "shout", "--times", "5")
        await _end_of(shouter)
        hearer = await world.launch(peer, "hear", "--times", "5")
        assert (await _end_of(hearer)).value == "01234"
