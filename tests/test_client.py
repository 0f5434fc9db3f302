"""Our own client against the gateway: every call, over memory streams and over loopback."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pie_trio.client import RemoteError, RemoteInstance, RequestRefused, ServerGone, open_client
from pie_trio.config import Limits
from pie_trio.errors import TooMany
from pie_trio.messages import OutputEvent
from pie_trio.services.program_store import hash_bytes
from tests.support.gateway import World, open_world
from tests.support.programs import component, manifest
from tests.support.scripted_engine import ScriptedInstance


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path) as world:
        yield world


async def test_ping_and_query_are_answered(world: World) -> None:
    async with world.connect() as client:
        await client.ping()
        assert await client.model_status() == {
            "pretend.kv_pages_used": 0,
            "pretend.batch_size_hist": [1, 2],
        }
        with pytest.raises(RequestRefused, match="unknown subject 'weather'"):
            await client.query("weather")


async def test_an_installed_program_is_there_afterwards(world: World) -> None:
    artifact = component(600_000)  # three chunks
    async with world.connect() as client:
        assert not await client.check("fresh", "1.0.0")
        await client.install(manifest("fresh", "1.0.0"), artifact)
        assert await client.check("fresh", "1.0.0", artifact_hash=hash_bytes(artifact))
        assert not await client.check("fresh", "1.0.0", artifact_hash="00" * 32)
    record = world.engine.programs.find("fresh")
    assert record is not None
    assert record.artifact.read_bytes() == artifact


async def test_a_file_is_installed_under_its_own_name(world: World, tmp_path: Path) -> None:
    path = tmp_path / "hello.py"
    path.write_text("async def main(args): return 'hello'")
    async with world.connect() as client:
        identity = await client.install_file(path)
    assert identity == "hello@0.0.0"
    assert world.engine.programs.find(identity) is not None


async def test_a_launch_streams_its_events_and_ends_with_its_result(world: World) -> None:
    async with world.connect() as client:
        instance = await client.launch("talker")
        assert [event async for event in instance] == [
            OutputEvent("stdout", "out"),
            OutputEvent("stderr", "err"),
            OutputEvent("message", "told"),
            OutputEvent("return", '{"answer": 42}'),
        ]
        again = await client.launch("talker")
        assert await again.result() == '{"answer": 42}'
        assert again.output == "outtold"


async def test_arguments_and_messages_reach_the_program(world: World) -> None:
    async with world.connect() as client:
        one = await client.launch("echo", arguments=["--text", "a b"])
        await one.send("first")
        two = await client.launch("echo@0.1.0", input={"max_tokens": 3, "verbose": True})
        await two.send("second")
        assert (await one.result(), one.output) == ("first", "--text a b")
        assert (await two.result(), two.output) == ("second", "--max-tokens 3 --verbose")


async def test_the_programs_own_error_is_raised(world: World) -> None:
    async with world.connect() as client:
        instance = await client.launch("failing")
        with pytest.raises(RemoteError, match="unreachable"):
            await instance.result()
        with pytest.raises(RequestRefused, match="not found"):
            await client.launch("absent@1.0.0")
        with pytest.raises(RequestRefused, match="neither an object"):
            await client.launch("echo", input="text")


async def test_a_terminated_instance_ends_with_signal(world: World) -> None:
    async with world.connect() as client:
        instance = await client.launch("sleeper")
        await instance.terminate()
        with pytest.raises(RemoteError, match="Signal"):
            await instance.result()
        other = await client.launch("sleeper")
        await client.terminate(other.id)
        assert [event async for event in other] == [OutputEvent("error", "Signal")]


async def test_blobs_travel_both_ways(world: World) -> None:
    blob = bytes(range(256)) * 3000
    async with world.connect() as client:
        instance = await client.launch("file-echo")
        await instance.send_blob(blob)
        events = [event async for event in instance]
        assert events == [
            OutputEvent("file", "greeting.bin", b"hello"),
            OutputEvent("file", "", blob),
            OutputEvent("return", str(len(blob))),
        ]
        empty = await client.launch("file-echo")
        await empty.send_blob(b"")
        assert await empty.result() == "0"


async def test_a_list_shows_ones_own_instances(world: World) -> None:
    async with world.connect() as ann, world.connect("bob") as bob:
        mine = await ann.launch("sleeper", input={"a": "é"})
        await bob.launch("sleeper")
        [row] = await ann.list()
        assert (row.id, row.user, row.program) == (mine.id, "ann", "sleeper@0.1.0")
        assert json.loads(row.input) == {"a": "é"}
        assert not row.is_finished
        for deed in (bob.terminate, bob.attach):
            with pytest.raises(RequestRefused, match="Permission denied"):
                await deed(mine.id)


async def test_another_connection_attaches_where_the_first_left_off(world: World) -> None:
    async with world.connect() as first:
        instance = await first.launch("echo", arguments=["before"])
        assert await anext(instance) == OutputEvent("stdout", "before")
    async with world.connect() as second:
        again = await second.attach(instance.id)
        await again.send("after")
        assert [event async for event in again] == [OutputEvent("return", "after")]


async def test_what_ended_without_a_reader_is_kept_for_one(world: World) -> None:
    async with world.connect() as first:
        instance = await first.launch("echo", arguments=["kept"])
    scripted = world.engine.find(instance.id)
    assert scripted is not None
    scripted.inbox.deliver("done")
    await scripted.ended.wait()
    async with world.connect() as second:
        assert [row.is_finished for row in await second.list()] == [True]
        again = await second.attach(instance.id)
        kinds = [(event.kind, event.value) async for event in again]
        assert kinds[-1] == ("return", "done")
        await wait_all_tasks_blocked(0.01)
        assert world.engine.find(instance.id) is None
        with pytest.raises(RequestRefused, match="Process not found"):
            await second.attach(instance.id)


async def test_only_one_client_is_attached(world: World) -> None:
    async with world.connect() as first, world.connect() as second:
        instance = await first.launch("sleeper")
        with pytest.raises(RequestRefused, match="somebody else is attached"):
            await second.attach(instance.id)


async def test_many_runs_return_in_the_order_of_their_inputs(world: World) -> None:
    async def identity(instance: ScriptedInstance) -> str:
        return " ".join(instance.arguments)

    world.engine.add("identity", identity)
    async with world.connect() as client:
        inputs = [{"args": [str(n)]} for n in range(20)]
        assert await client.run_many("identity", inputs) == [str(n) for n in range(20)]
        instances = await client.launch_many("identity", inputs)
        assert [await each.result() for each in instances] == [str(n) for n in range(20)]
        with pytest.raises(RequestRefused, match="unreachable"):
            await client.run_many("failing", [{}, {}])
        with pytest.raises(RequestRefused):
            await client.launch_many("identity", [{}, "text"])


async def test_a_launch_without_capture_leaves_an_instance_to_attach_to(world: World) -> None:
    async with world.connect() as client:
        silent = await client.launch("echo", arguments=["unseen"], capture=False)
        scripted = world.engine.find(silent.id)
        assert scripted is not None
        assert not scripted.outlet.is_attached


async def test_pending_calls_and_readers_fail_when_the_connection_dies(world: World) -> None:
    async with world.connect() as client:
        instance = await client.launch("sleeper")
        async with trio.open_nursery() as nursery:

            async def fails(call: Callable[[], Awaitable[object]]) -> None:
                with pytest.raises(ServerGone):
                    await call()

            nursery.start_soon(fails, instance.result)
            nursery.start_soon(fails, partial(client.run_many, "sleeper", [{}]))
            await wait_all_tasks_blocked()
            world.stop_serving.cancel()
        with pytest.raises(ServerGone):
            await client.ping()


@pytest.mark.parametrize("steps", range(0, 40, 2))
async def test_a_launch_cancelled_at_any_step_leaves_nothing_running(
    steps: int, world: World
) -> None:
    held: list[RemoteInstance] = []

    async def launch() -> None:
        held.append(await client.launch("sleeper"))

    async with world.connect() as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(launch)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        await client.ping()
        await wait_all_tasks_blocked(0.01)
        left = [each.id for each in world.engine.instances() if not each.is_finished]
        assert left == [each.id for each in held]


async def test_output_that_nobody_reads_is_bounded_and_delays_nobody(tmp_path: Path) -> None:
    async def flood(instance: ScriptedInstance) -> str:
        for _ in range(100):
            await instance.say("x" * 1000, "message")
        return ""

    async with open_world(tmp_path, Limits(client_events_bytes=10_000)) as world:
        world.engine.add("flood", flood)
        async with world.connect() as client:
            unread = await client.launch("flood")
            talker = await client.launch("talker")
            assert await talker.result() == '{"answer": 42}'
            with pytest.raises(TooMany, match="client_events_bytes"):
                await unread.result()


async def test_the_callers_own_error_comes_out_unwrapped(world: World) -> None:
    with pytest.raises(LookupError, match="mine"):
        async with world.connect():
            raise LookupError("mine")


async def test_it_works_over_loopback(world: World) -> None:
    async with open_client(world.url, user="ann") as client:
        instance = await client.launch("echo", arguments=["hi"])
        await instance.send("there")
        assert await instance.result() == "there"


async def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(ServerGone, match="cannot connect to ws"):
        async with open_client("ws://127.0.0.1:1"):
            pass


async def test_a_server_that_refuses_the_path_is_named(world: World) -> None:
    with pytest.raises(ServerGone, match="404"):
        async with open_client(world.url + "/elsewhere"):
            pass
