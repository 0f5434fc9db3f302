"""The gateway against clients that are wrong, slow, hostile or gone."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import msgpack
import pytest
import trio
import trio_websocket
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from pie_trio.client import ServerGone, open_client, open_client_on
from pie_trio.config import Limits
from pie_trio.errors import BadConfig
from pie_trio.events import ClientConnected, ClientDisconnected
from pie_trio.messages import OutputEvent
from pie_trio.services.chunks import content_hash, cut
from pie_trio.services.client_messages import NOT_SERVED
from pie_trio.services.client_protocol import ProtocolError, decode_from_client
from pie_trio.services.gateway import open_listeners
from pie_trio.services.gateway.feed import split_text
from tests.support.gateway import Map, RawClient, World, open_world
from tests.support.programs import component, manifest
from tests.support.scripted_engine import ScriptedInstance


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path) as world:
        yield world


def launch(name: str, corr_id: int = 2, **fields: object) -> Map:
    message: Map = {"type": "launch_process", "corr_id": corr_id, "inferlet": name}
    return {**message, "input": "{}", "capture_outputs": True, **fields}


MALFORMED: dict[str, tuple[bytes | Map, int]] = {
    "not MessagePack": (b"\xc1", 0),
    "nothing": (b"", 0),
    "a number": (b"\x05", 0),
    "a list": (msgpack.packb([1, 2]), 0),
    "cut off": (msgpack.packb({"type": "ping", "corr_id": 4})[:-1], 0),
    "more than one value": (msgpack.packb({"type": "ping", "corr_id": 4}) * 2, 0),
    "a deep list": (b"\x91" * 5000, 0),
    "a huge announced list": (b"\xdd\xff\xff\xff\xff", 0),
    "very many lists": (msgpack.packb({"type": "ping", "corr_id": 4, "x": [[]] * 9000}), 0),
    "number keys": (msgpack.packb({1: 2}), 0),
    "text that is not UTF-8": (b"\x81\xa4type\xa2\xff\xff", 0),
    "no type": ({"corr_id": 7}, 7),
    "type is a number": ({"type": 3, "corr_id": 7}, 7),
    "unknown type": ({"type": "dance", "corr_id": 7}, 7),
    "a server's message": ({"type": "response", "corr_id": 7, "ok": True, "result": ""}, 7),
    "no number": ({"type": "ping"}, 0),
    "number is text": ({"type": "ping", "corr_id": "7"}, 0),
    "number is a truth": ({"type": "ping", "corr_id": True}, 0),
    "number is negative": ({"type": "ping", "corr_id": -7}, -7),
    "missing key": ({"type": "query", "corr_id": 7, "subject": "model_status"}, 7),
    "wrong type": (launch("talker", 7, capture_outputs="yes"), 7),
    "wrong item": ({**launch("talker", 7), "type": "run_processes", "inputs": [1]}, 7),
    "signal to nobody": ({"type": "signal_process", "process_id": "x", "message": "m"}, 0),
    "token budget": (launch("talker", 7, token_budget=5), 7),
    "unknown subject": ({"type": "query", "corr_id": 7, "subject": "x", "record": ""}, 7),
    "malformed input": (launch("talker", 7, input="{"), 7),
    "strange program": (launch("../talker", 7), 7),
    "another user": ({"type": "auth_identify", "corr_id": 7, "username": "eve"}, 7),
    "unknown instance": ({"type": "attach_process", "corr_id": 7, "process_id": "x"}, 7),
    **{name: ({"type": name, "corr_id": 7}, 7) for name in NOT_SERVED},
}


@pytest.mark.parametrize("case", MALFORMED)
async def test_a_bad_message_gets_an_error_and_the_connection_lives(
    case: str, world: World
) -> None:
    frame, corr_id = MALFORMED[case]
    async with world.raw() as client:
        answer = await client.ask(frame)
        assert (answer["type"], answer["ok"], answer["corr_id"]) == ("response", False, corr_id)
        assert answer["result"]
        pong = await client.ask({"type": "ping", "corr_id": 9})
        assert (pong["corr_id"], pong["ok"]) == (9, True)


async def test_a_text_frame_gets_an_error_and_the_connection_lives(world: World) -> None:
    async with world.raw() as client:
        await client.socket.send_message("hello")
        answer = await client.receive()
        assert (answer["ok"], answer["corr_id"]) == (False, 0)
        assert (await client.ask({"type": "ping", "corr_id": 9}))["ok"]


async def test_unauthenticated_requests_are_refused_and_may_authenticate_then(
    world: World,
) -> None:
    async with world.raw(user=None) as client:
        refused = await client.ask({"type": "ping", "corr_id": 1})
        assert (refused["ok"], "not authenticated" in str(refused["result"])) == (False, True)
        assert not (await client.ask(launch("talker")))["ok"]
        assert world.engine.instances() == []
        unnamed = await client.ask({"type": "auth_identify", "corr_id": 3, "username": ""})
        assert not unnamed["ok"]
        answer = await client.ask({"type": "auth_identify", "corr_id": 4, "username": "ann"})
        assert answer["result"] == "Authenticated (Engine disabled authentication)"


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("type"), inner),
    ).map(msgpack.packb)
)
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_message_or_a_protocol_error(frame: bytes) -> None:
    try:
        decode_from_client(frame)
    except ProtocolError as error:
        assert str(error), "an error says what is wrong"  # noqa: PT017


VALUES = st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=9) | st.binary(max_size=9)
KEYS = st.sampled_from(["subject", "record", "inferlet", "input"])
TYPES = st.sampled_from([*NOT_SERVED, "ping", "query", "launch_process", "add_program"])


@given(st.lists(st.dictionaries(KEYS, VALUES), max_size=5), TYPES)
@settings(max_examples=30, deadline=None)
def test_any_sequence_of_bad_messages_leaves_a_connection_that_answers(
    tmp_path_factory: pytest.TempPathFactory, messages: list[Map], kind: str
) -> None:
    async def main() -> None:
        async with open_world(tmp_path_factory.mktemp("fuzz")) as world, world.raw() as client:
            for number, message in enumerate(messages, start=10):
                answer = await client.ask({**message, "type": kind, "corr_id": number})
                assert answer["corr_id"] in (0, number)
            assert (await client.ask({"type": "ping", "corr_id": 99}))["ok"]

    trio.run(main)


# Uploads


def upload(artifact: bytes, name: str = "fresh", corr_id: int = 5, **fields: object) -> list[Map]:
    chunks = cut(artifact, 262_144)
    return [
        {
            "type": "add_program",
            "corr_id": corr_id,
            "program_hash": content_hash(artifact),
            "manifest": manifest(name),
            "force_overwrite": False,
            "total_chunks": len(chunks),
            "chunk_index": index,
            "chunk_data": chunk,
            **fields,
        }
        for index, chunk in enumerate(chunks)
    ]


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


BIG = component(600_000)
BAD_UPLOADS: dict[str, list[Map]] = {
    "not from the start": upload(BIG)[1:],
    "out of order": [upload(BIG)[0], upload(BIG)[2]],
    "a chunk twice": [upload(BIG)[0], upload(BIG)[0]],
    "another count": [upload(BIG)[0], {**upload(BIG)[1], "total_chunks": 9}],
    "no chunks": [{**upload(BIG)[0], "total_chunks": 0}],
    "wrong hash": upload(BIG, program_hash="00" * 32),
    "wrong wasm": upload(b"\0asm\x01\0\0\0"),
    "empty": upload(b""),
    "wrong manifest": upload(BIG, manifest="[package]"),
    "an escaping name": upload(BIG, manifest=manifest("../../fresh")),
    "a large chunk": [{**upload(BIG)[0], "chunk_data": bytes(262_145), "total_chunks": 1}],
}


@pytest.mark.parametrize("case", BAD_UPLOADS)
async def test_a_bad_upload_is_refused_and_leaves_nothing_behind(
    case: str, world: World, tmp_path: Path
) -> None:
    before = files(tmp_path)
    async with world.raw() as client:
        for message in BAD_UPLOADS[case]:
            await client.send(message)
        answer = await client.receive()
        assert (answer["ok"], answer["corr_id"]) == (False, 5)
        assert files(tmp_path) == before
        good = upload(BIG, corr_id=6)
        for message in good:
            await client.send(message)
        while (answer := await client.receive())["corr_id"] != 6:
            assert not answer["ok"]
        assert answer["ok"]
        assert world.engine.programs.find("fresh") is not None


async def test_an_upload_over_the_cap_or_beside_too_many_is_refused(tmp_path: Path) -> None:
    limits = Limits(upload_bytes=300_000, uploads_per_client=2)
    async with open_world(tmp_path, limits) as world, world.raw() as client:
        first, second, *_ = upload(BIG)
        await client.send(first)
        assert "exceeds the cap" in str((await client.ask(second))["result"])
        for corr_id in (7, 8):
            await client.send({**first, "corr_id": corr_id})
        refused = await client.ask({**first, "corr_id": 9})
        assert (refused["corr_id"], refused["ok"]) == (9, False)


async def test_two_uploads_at_once_do_not_mix(world: World) -> None:
    one, two = upload(BIG, "one", 5), upload(component(700_000), "two", 6)
    async with world.raw() as client:
        for pair in zip(one, two, strict=True):
            for message in pair:
                await client.send(message)
        answers = [await client.receive(), await client.receive()]
        assert {(answer["corr_id"], answer["ok"]) for answer in answers} == {(5, True), (6, True)}


# Events


async def events_of(client: RawClient, process_id: object) -> list[tuple[object, object]]:
    """Up to and with the terminal event."""
    events: list[tuple[object, object]] = []
    while not events or events[-1][0] not in ("return", "error"):
        message = await client.receive()
        if message["type"] == "process_event":
            assert message["process_id"] == process_id
            events.append((message["event"], message["value"]))
    return events


async def test_the_launch_is_answered_before_its_events_and_ends_once(world: World) -> None:
    async with world.raw() as client:
        answer = await client.ask(launch("talker"))
        assert (answer["type"], answer["ok"]) == ("response", True)
        events = await events_of(client, answer["result"])
        assert [kind for kind, _ in events] == ["stdout", "stderr", "message", "return"]
        assert (await client.ask({"type": "ping", "corr_id": 9}))["type"] == "response"
        assert world.engine.forgotten == [answer["result"]]


async def test_texts_larger_than_a_message_are_split_and_lose_nothing(world: World) -> None:
    text = "é" * 1_300_000

    async def shout(instance: ScriptedInstance) -> str:
        await instance.say(text)
        return text

    world.engine.add("shout", shout)
    async with world.raw() as client:
        answer = await client.ask(launch("shout"))
        events = await events_of(client, answer["result"])
    assert "".join(str(value) for kind, value in events if kind == "stdout") == text
    assert all(len(str(value).encode()) <= world.limits.reply_bytes for _, value in events)


@given(st.text(max_size=60), st.integers(4, 20))
def test_split_text_cuts_between_characters(text: str, bytes_max: int) -> None:
    pieces = split_text(text, bytes_max)
    assert "".join(pieces) == text
    assert all(len(piece.encode()) <= bytes_max for piece in pieces)


async def test_the_first_file_waits_until_the_client_knows_the_instance(tmp_path: Path) -> None:
    async with open_world(tmp_path, Limits(file_hold_seconds=0.3)) as world, world.raw() as client:
        await client.ask(launch("file-echo"))
        before = trio.current_time()
        message = await client.receive()
        assert (message["type"], message["name"]) == ("file", "greeting.bin")
        assert trio.current_time() - before > 0.25


async def test_what_was_not_written_stays_for_the_next_client(world: World) -> None:
    async with world.connect() as first:
        instance = await first.launch("echo", arguments=["x"])
        scripted = world.engine.find(instance.id)
        assert scripted is not None
    await wait_all_tasks_blocked(0.01)
    assert not scripted.outlet.is_attached
    await scripted.outlet.put(OutputEvent("stdout", "later"))
    async with world.connect() as second:
        again = await second.attach(instance.id)
        seen = ""
        while not seen.endswith("later"):
            seen += (await anext(again)).value


# Slow and hostile peers


def handshake(path: str, header: bytes) -> bytes:
    return (
        b"GET %b HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n%b\r\n\r\n"
    ) % (path.encode(), header)


async def test_a_client_that_reads_nothing_delays_nobody_and_is_cut_off(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async def flood(instance: ScriptedInstance) -> str:
        for _ in range(400):
            await instance.say("x" * 10_000)
        return "done"

    limits = Limits(client_stall_seconds=20.0)
    async with open_world(tmp_path, limits) as world, trio.open_nursery() as nursery:
        world.engine.add("flood", flood)
        ours, theirs = lockstep_stream_pair()
        await world.listener.offer(theirs)
        websocket = await trio_websocket.wrap_client_stream(
            nursery,
            ours,
            "localhost",
            "/",
            message_queue_size=0,  # type: ignore[arg-type]
        )
        stuck = RawClient(websocket)
        await stuck.authenticate()
        process_id = str((await stuck.ask(launch("flood")))["result"])
        async with world.connect() as other:
            talker = await other.launch("talker")
            assert await talker.result() == '{"answer": 42}'
            scripted = world.engine.find(process_id)
            assert scripted is not None
            await wait_all_tasks_blocked()
            assert scripted.outlet.waiting_bytes <= 2 * limits.outbox_bytes
            await trio.sleep(limits.client_stall_seconds + 1)
            assert not scripted.outlet.is_attached, "only the client is cut off"
            again = await other.attach(process_id)
            assert await again.result() == "done"
        reasons = [e.reason for e in world.events if isinstance(e, ClientDisconnected)]
        assert "reads nothing" in reasons
        nursery.cancel_scope.cancel()


async def test_a_handshake_that_never_ends_is_cut_off(
    world: World, autojump_clock: MockClock
) -> None:
    stream = await world.stream()
    await stream.send_all(b"GET / HTTP/1.1\r\nHost: ")
    before = trio.current_time()
    assert await stream.receive_some() == b""
    assert trio.current_time() - before == pytest.approx(world.limits.handshake_seconds)
    async with world.connect() as client:
        await client.ping()


@pytest.mark.parametrize(
    "junk", [b"\0" * 100, b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"PUT x\r\n" * 9]
)
async def test_a_peer_that_speaks_something_else_harms_nobody(
    junk: bytes, world: World, autojump_clock: MockClock
) -> None:
    stream = await world.stream()
    await stream.send_all(junk)
    while await stream.receive_some():
        pass
    async with world.connect() as client:
        await client.ping()


BAD_FRAMES = {
    "reserved opcode": b"\x83\x80\0\0\0\0",
    "unmasked": b"\x82\x01\x05",
    "reserved bits": b"\xf2\x80\0\0\0\0",
    "continuation of nothing": b"\x80\x80\0\0\0\0",
    "fragmented ping": b"\x09\x80\0\0\0\0",
    "long ping": b"\x89\xfe\x01\x00\0\0\0\0" + bytes(256),
    "text that is not UTF-8": b"\x81\x81\0\0\0\0\xff",
    "announced 2**62 bytes": b"\x82\xff\x40\0\0\0\0\0\0\0\0\0\0\0",
    "bad close code": b"\x88\x82\0\0\0\0\x03\xe7",
    "cut off": b"\x82\xfe\x01\x00\0\0",
    "ping after close": b"\x88\x80\0\0\0\0\x89\x80\0\0\0\0",
}


@pytest.mark.parametrize("case", BAD_FRAMES)
async def test_a_broken_websocket_frame_ends_its_own_connection_only(
    case: str, world: World, autojump_clock: MockClock
) -> None:
    stream = await world.stream()
    await stream.send_all(handshake("/", b"X-Nothing: 1"))
    assert b"101" in bytes(await stream.receive_some())
    await stream.send_all(BAD_FRAMES[case])
    await wait_all_tasks_blocked()
    await stream.aclose()
    async with world.connect() as client:
        await client.ping()


async def test_a_message_over_the_bound_ends_its_own_connection_only(tmp_path: Path) -> None:
    async with open_world(tmp_path, Limits(frame_bytes=10_000)) as world:
        async with world.raw() as client:
            await client.socket.send_message(bytes(20_000))
            with pytest.raises(trio_websocket.ConnectionClosed):
                await client.socket.get_message()
        async with world.connect() as other:
            await other.ping()


async def test_a_stream_that_brings_one_byte_at_a_time_is_understood(world: World) -> None:
    ours, theirs = memory_stream_pair()
    near, far = memory_stream_pair()
    await world.listener.offer(theirs)
    async with trio.open_nursery() as nursery:

        async def drip(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
            while data := await source.receive_some():
                for place in range(len(data)):
                    await sink.send_all(bytes(data[place : place + 1]))

        nursery.start_soon(drip, far, ours)
        nursery.start_soon(drip, ours, far)
        websocket = await trio_websocket.wrap_client_stream(
            nursery,
            near,
            "localhost",
            "/",  # type: ignore[arg-type]
        )
        client = RawClient(websocket)
        await client.authenticate()
        answer = await client.ask(launch("talker"))
        events = await events_of(client, answer["result"])
        assert events[-1] == ("return", '{"answer": 42}')
        nursery.cancel_scope.cancel()


async def test_no_more_clients_than_allowed_are_let_in(tmp_path: Path) -> None:
    async with open_world(tmp_path, Limits(clients_max=1)) as world:
        async with world.connect() as client:
            stream = await world.stream()
            assert await stream.receive_some() == b""
            await client.ping()
        await wait_all_tasks_blocked(0.01)
        async with world.connect() as next_client:
            await next_client.ping()


@pytest.mark.parametrize(
    "path, header, status",
    [
        ("/", b"X-Nothing: 1", b"101"),
        ("/v1/ws", b"x-pie-identity: default/bench", b"101"),
        ("/v1/ws?x=1", b"X-Nothing: 1", b"101"),
        ("/etc/passwd", b"X-Nothing: 1", b"404"),
        ("/", b"Origin: https://example.org", b"403"),
    ],
)
async def test_paths_and_browsers_are_told_apart(
    path: str, header: bytes, status: bytes, world: World
) -> None:
    stream = await world.stream()
    await stream.send_all(handshake(path, header))
    assert bytes(await stream.receive_some()).split()[1] == status


async def test_compression_is_declined(world: World) -> None:
    stream = await world.stream()
    await stream.send_all(handshake("/", b"Sec-WebSocket-Extensions: permessage-deflate"))
    answer = bytes(await stream.receive_some())
    assert b"101" in answer
    assert b"deflate" not in answer.lower()


async def test_a_websocket_ping_is_answered(world: World) -> None:
    async with world.raw() as client:
        with trio.fail_after(5):
            await client.socket.ping(b"are you there")


# Stopping


async def test_a_stopping_server_delivers_what_ends_meanwhile_and_says_goodbye(
    world: World,
) -> None:
    async with world.connect() as client:
        ended, running = await client.launch("sleeper"), await client.launch("sleeper")
        scripted = world.engine.find(ended.id)
        assert scripted is not None
        world.stop_serving.cancel()
        await wait_all_tasks_blocked()
        scripted.terminate("the server stops")
        assert [event.value async for event in ended] == ["the server stops"]
        with pytest.raises(ServerGone, match="1001"):
            await running.result()
    await world.stopped.wait()
    still = world.engine.find(running.id)
    assert still is not None
    assert not still.is_finished
    assert not still.outlet.is_attached


async def test_a_server_with_a_stuck_client_stops_in_time(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_world(tmp_path) as world, trio.open_nursery() as nursery:
        ours, theirs = lockstep_stream_pair()
        await world.listener.offer(theirs)
        websocket = await trio_websocket.wrap_client_stream(
            nursery,
            ours,
            "localhost",
            "/",
            message_queue_size=0,  # type: ignore[arg-type]
        )
        stuck = RawClient(websocket)
        await stuck.authenticate()
        for number in range(5):
            await stuck.send(launch("talker", number))
        await wait_all_tasks_blocked()
        before = trio.current_time()
        world.stop_serving.cancel()
        await world.stopped.wait()
        assert trio.current_time() - before <= world.limits.close_seconds
        nursery.cancel_scope.cancel()


async def test_connections_come_and_go_as_events(world: World) -> None:
    async with world.connect():
        pass
    await wait_all_tasks_blocked(0.01)
    assert [type(event) for event in world.events] == [ClientConnected, ClientDisconnected]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
async def test_only_loopback_addresses_are_served(host: str) -> None:
    with pytest.raises(BadConfig, match="loopback"):
        await open_listeners(host, 0, Limits())


async def test_a_peer_that_acknowledges_nothing_cannot_hold_a_socket_open() -> None:
    limits = Limits(client_stall_seconds=7.0)
    listeners = await open_listeners("localhost", 0, limits)
    for listener in listeners:
        patience = listener.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert patience == 7000
        await listener.aclose()


async def test_five_hundred_launches_at_once_end_once_each(world: World) -> None:
    """The history of one client over loopback: every launch has one terminal event, its last."""
    async with open_client(world.url, user="ann") as client:
        instances = await client.launch_many("talker", [{}] * 500)
        for instance in instances:
            kinds = [event.kind async for event in instance]
            assert kinds[-1] == "return"
            assert sum(kind in ("return", "error") for kind in kinds) == 1
        assert json.loads(await client.query("model_status"))
        assert await client.list() == []


async def test_a_message_for_what_has_ended_is_refused(world: World) -> None:
    async with world.connect("ann") as launcher:
        instance = await launcher.launch("echo")
    scripted = world.engine.find(instance.id)
    assert scripted is not None
    scripted.terminate()
    await scripted.ended.wait()
    async with world.raw() as client:
        signal = {"type": "signal_process", "process_id": instance.id, "message": "late"}
        answer = await client.ask(signal)
        assert (answer["corr_id"], answer["ok"]) == (0, False)
        assert "already ended" in str(answer["result"])


@pytest.mark.parametrize("steps", range(0, 150, 6))
async def test_a_connection_that_dies_at_any_step_leaves_the_rest_to_the_next(
    steps: int, world: World
) -> None:
    """The next client reads the end of the output without a gap, its terminal event once."""

    async def count(instance: ScriptedInstance) -> str:
        for number in range(30):
            await instance.say(f"{number} ", "message")
            await trio.lowlevel.checkpoint()
        return "done"

    world.engine.add("count", count)
    async with trio.open_nursery() as nursery:
        stream = await world.stream()

        async def first_client() -> None:
            async with open_client_on(stream, user="ann") as client:
                await (await client.launch("count")).result()

        nursery.start_soon(first_client)
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    await wait_all_tasks_blocked(0.01)
    everything = [f"{number} " for number in range(30)] + ["done"]
    async with world.connect() as second:
        for row in await second.list():
            again = await second.attach(row.id)
            seen = [event.value async for event in again]
            assert seen == everything[len(everything) - len(seen) :]
            assert seen[-1] == "done"
    await wait_all_tasks_blocked(0.01)
    assert world.engine.instances() == []
