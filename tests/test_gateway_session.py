"""A session without a connection: what it does when its client's outbox is full and then dies."""

from __future__ import annotations

from pathlib import Path

import msgpack
import trio
from trio.testing import wait_all_tasks_blocked

from pie_trio.config import Limits
from pie_trio.services.gateway.outbox import Outbox
from pie_trio.services.gateway.session import Session
from tests.support.scripted_engine import open_scripted_engine
from tests.test_gateway_feed import taken


async def test_a_launch_whose_answer_never_left_lets_go_of_its_instance(tmp_path: Path) -> None:
    async with open_scripted_engine(tmp_path) as engine, trio.open_nursery() as nursery:
        session = Session(engine, Limits(), Outbox(1), nursery)
        identify = {"type": "auth_identify", "corr_id": 1, "username": "ann"}
        await session.hear(msgpack.packb(identify))  # now the outbox is full
        launch = {"type": "launch_process", "corr_id": 2, "inferlet": "sleeper", "input": "{}"}
        await session.hear(msgpack.packb({**launch, "capture_outputs": True}))
        await wait_all_tasks_blocked()
        [instance] = engine.instances()
        assert instance.outlet.is_attached
        nursery.cancel_scope.cancel()
    assert not instance.outlet.is_attached


async def test_a_stop_waits_for_the_ending_of_what_was_just_launched(tmp_path: Path) -> None:
    async with open_scripted_engine(tmp_path) as engine, trio.open_nursery() as nursery:
        session = Session(engine, Limits(), Outbox(1), nursery)
        identify = {"type": "auth_identify", "corr_id": 1, "username": "ann"}
        await session.hear(msgpack.packb(identify))  # now the outbox is full
        launch = {"type": "launch_process", "corr_id": 2, "inferlet": "sleeper", "input": "{}"}
        await session.hear(msgpack.packb({**launch, "capture_outputs": True}))
        await wait_all_tasks_blocked()  # its instance runs, its answer waits for room
        delivered = trio.Event()

        async def stop() -> None:
            await session.deliver_endings()
            delivered.set()

        nursery.start_soon(stop)
        await wait_all_tasks_blocked()
        assert not delivered.is_set()
        nursery.cancel_scope.cancel()


async def test_requests_beyond_the_bound_are_refused_and_the_others_go_on(tmp_path: Path) -> None:
    limits = Limits(requests_per_client=1)
    async with open_scripted_engine(tmp_path, limits) as engine, trio.open_nursery() as nursery:
        outbox = Outbox(1_000_000)
        session = Session(engine, limits, outbox, nursery)
        await session.hear(msgpack.packb({"type": "auth_identify", "corr_id": 1, "username": "a"}))
        for number in (2, 3):
            run = {"type": "run_processes", "corr_id": number, "inferlet": "sleeper"}
            await session.hear(msgpack.packb({**run, "inputs": ["{}"]}))
        await wait_all_tasks_blocked()
        await session.hear(msgpack.packb({"type": "ping", "corr_id": 4}))
        answers = [msgpack.unpackb(parcel.frame) for parcel in await taken(outbox)]
        assert [(each["corr_id"], each["ok"]) for each in answers] == [
            (1, True),
            (3, False),
            (4, True),
        ]
        nursery.cancel_scope.cancel()
