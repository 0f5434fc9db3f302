"""The parts that the simulator plays: a ZeroMQ socket, a byte stream, an order of tasks."""

from __future__ import annotations

import gc
from collections import Counter

import pytest
import trio
import zmq

from pie_trio.services.zmq_socket import MESSAGES_AT_ONCE, open_socket
from pie_trio.testing.faults import Fault, FaultPlan
from pie_trio.testing.scheduler import MODES, Mode, Scheduler, in_control
from pie_trio.testing.sim_net import SimListener
from pie_trio.testing.sim_socket import Frames, SimSocket


def plan(*faults: Fault) -> FaultPlan:
    return FaultPlan(faults, lambda _fault: None)


async def test_the_real_socket_class_sends_waits_and_receives_over_the_played_one() -> None:
    sent: list[Frames] = []
    taken: list[Frames] = []
    faults = iter([zmq.EAGAIN, 0, 0])
    played = SimSocket(sent.append, lambda: next(faults))
    async with open_socket(played) as socket, trio.open_nursery() as nursery:  # type: ignore[arg-type]
        nursery.start_soon(socket.receive, taken.append)
        nursery.start_soon(socket.send_multipart, [b"a", b"b"])
        await trio.testing.wait_all_tasks_blocked()
        assert sent == []
        played.make_room()
        await trio.testing.wait_all_tasks_blocked()
        assert sent == [[b"a", b"b"]]
        played.deliver([b"one"])
        played.deliver([b"two"])
        await trio.testing.wait_all_tasks_blocked()
        assert taken == [[b"one"], [b"two"]]
        played.deliver([b"three"])
        assert socket.send_nowait([b"c"])  # swallows the edge that tells of it
        await trio.testing.wait_all_tasks_blocked()
        assert taken[2:] == [[b"three"]]
        socket.close()  # ends who receives
    assert played.is_closed


async def test_a_peer_that_never_pauses_leaves_others_their_turn() -> None:
    played = SimSocket(lambda _frames: None, lambda: 0)
    taken: list[Frames] = []

    def take(frames: Frames) -> None:
        taken.append(frames)
        played.deliver([b"more"])

    async with open_socket(played) as socket, trio.open_nursery() as nursery:  # type: ignore[arg-type]
        played.deliver([b"one"])
        nursery.start_soon(socket.receive, take)
        while len(taken) < 2 * MESSAGES_AT_ONCE:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("error", [zmq.Again, trio.ClosedResourceError])
async def test_what_goes_wrong_with_a_message_is_no_trouble_of_the_socket(
    error: type[Exception],
) -> None:
    played = SimSocket(lambda _frames: None, lambda: 0)

    def take(_frames: Frames) -> None:
        raise error

    async with open_socket(played) as socket:  # type: ignore[arg-type]
        played.deliver([b"one"])
        with pytest.raises(error):
            await socket.receive(take)


async def test_a_played_peer_that_is_gone_raises_at_the_sender() -> None:
    played = SimSocket(lambda _frames: None, lambda: zmq.EHOSTUNREACH)
    async with open_socket(played) as socket:  # type: ignore[arg-type]
        with pytest.raises(zmq.ZMQError):
            await socket.send_multipart([b"a"])


async def test_a_stream_is_bounded_and_its_end_is_seen_behind_the_bytes() -> None:
    listener = SimListener(plan(), bytes_max=4)
    client = listener.connect()
    server = await listener.accept()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, b"0123456789")
        await trio.testing.wait_all_tasks_blocked()
        assert len(client.out.waiting) == 4
        got = b""
        while len(got) < 10:
            got += await server.receive_some()
    assert got == b"0123456789"
    await client.send_all(b"end")
    await client.aclose()
    assert await server.receive_some() == b"end"
    assert await server.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        await server.send_all(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await client.receive_some()


async def test_faults_of_the_net_break_dribble_and_refuse() -> None:
    listener = SimListener(plan(Fault(0, "net.dribble", 1), Fault(1, "net.disconnect", 4)))
    client = listener.connect()
    server = await listener.accept()
    await client.send_all(b"ab")
    assert await server.receive_some() == b"a"
    assert await server.receive_some() == b"b"
    await client.send_all(b"c")
    with pytest.raises(trio.BrokenResourceError):
        await server.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await client.send_all(b"d")


async def _story(seen: list[int]) -> None:
    async def step(number: int) -> None:
        for _ in range(3):
            await trio.lowlevel.checkpoint()
            seen.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(step, number)


def order_of(seed: int, mode: Mode, picks: list[int] | None = None) -> tuple[list[int], list[int]]:
    scheduler = Scheduler(seed, mode, mode == "shuffle", picks)
    seen: list[int] = []
    with in_control(scheduler):
        trio.run(_story, seen)
    return seen, scheduler.picks


@pytest.mark.parametrize("mode", MODES)
def test_a_seed_decides_the_order_of_tasks_and_its_picks_repeat_it(mode: Mode) -> None:
    seen, picks = order_of(5, mode)
    assert order_of(5, mode) == (seen, picks)
    assert order_of(99, mode, picks)[0] == seen
    assert len({tuple(order_of(seed, mode)[0]) for seed in range(40)}) > 10


def test_plain_order_is_what_is_left_when_picks_run_out() -> None:
    plain = order_of(0, "fifo")[0]
    assert Counter(plain) == {0: 3, 1: 3, 2: 3, 3: 3}
    assert order_of(5, "shuffle", [])[0] == plain


def test_control_is_given_back_and_garbage_waits_meanwhile() -> None:
    before = trio.to_thread.run_sync
    switch = trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING

    async def main() -> None:
        assert not gc.isenabled()
        assert await trio.to_thread.run_sync(len, "four") == 4
        raise ValueError("anything")

    with pytest.raises(ValueError, match="anything"), in_control(Scheduler(1)):
        trio.run(main)
    assert gc.isenabled()
    assert trio.to_thread.run_sync is before
    assert switch is trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING
